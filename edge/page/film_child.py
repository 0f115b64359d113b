"""The process that draws one film: an `Order` on standard input, a PNG on standard output."""

from __future__ import annotations

import io
import logging
import os
import resource
import sys
import warnings
from pathlib import Path

import msgspec

from edge.infer.heat_picture import fit, with_heat
from edge.page.film import Order
from edge.pixels.decode import Limits, decode_file
from edge.pixels.memory_limit import limit_memory
from edge.pixels.turn import turn
from edge.unattended.hardening import forbid_core_dumps
from edge.unattended.out_of_memory import be_ended_first


def draw(order: Order) -> bytes:
    """Return the PNG. Raises as `edge.pixels.decode.decode_file`."""
    image = decode_file(Path(order.path), Limits(order.max_bytes, order.max_pixels)).image
    small = fit(image, order.side)
    shown = small if order.heat is None else with_heat(small, order.heat)
    out = io.BytesIO()
    shown.save(out, format="PNG")
    return out.getvalue()


def main() -> None:
    """Read the order, keep to its limits, write the picture; exit status 1 if there is none."""
    be_ended_first()
    forbid_core_dumps()
    order = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Order)
    limit_memory(order.memory_mb * 2**20)
    resource.setrlimit(resource.RLIMIT_CPU, (order.cpu_s, order.cpu_s + 1))
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # decoders write to stdout now and then
    try:
        with turn(Path(order.turn)):
            drawn = draw(order)
    except Exception:
        sys.exit(1)
    out.write(drawn)
    out.flush()


if __name__ == "__main__":
    main()
