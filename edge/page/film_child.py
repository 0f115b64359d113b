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
from PIL import Image

from edge.decode import Limits, decode_file
from edge.local import Heat
from edge.page.film import Order
from edge.preprocess import centre_square

_HOTTEST = 0.55
"""Share of colour where the heat is greatest: what lies under it stays to be seen."""


def draw(order: Order) -> bytes:
    """Return the PNG. Raises as `edge.decode.decode_file`."""
    image = decode_file(Path(order.path), Limits(order.max_bytes, order.max_pixels)).image
    factor = min(1.0, order.side / max(image.size))
    small = image.resize((max(round(image.width * factor), 1), max(round(image.height * factor), 1)), Image.Resampling.BOX)
    shown = small if order.heat is None else with_heat(small, order.heat)
    out = io.BytesIO()
    shown.save(out, format="PNG")
    return out.getvalue()


def with_heat(image: Image.Image, heat: Heat) -> Image.Image:
    """Return the picture in colour, with the heat over the square that the network was given.

    Args:
        image: mode L.
        heat: rows x columns bytes, 0..255.
    """
    left, upper, right, lower = centre_square(image.height, image.width)
    cells = Image.frombytes("L", (heat.columns, heat.rows), heat.values)
    spread = cells.resize((right - left, lower - upper), Image.Resampling.BICUBIC)
    colour = Image.merge("RGB", [spread.point(table) for table in (_RED, _GREEN, _BLUE)])
    strength = spread.point([round(value * _HOTTEST) for value in range(256)])
    result = image.convert("RGB")
    result.paste(colour, (left, upper), strength)
    return result


# From amber to red: tells apart for most who see colours otherwise, since it also gets darker.
_RED = [255] * 256
_GREEN = [round(200 - 170 * value / 255) for value in range(256)]
_BLUE = [round(40 - 20 * value / 255) for value in range(256)]


def main() -> None:
    """Read the order, keep to its limits, write the picture; exit status 1 if there is none."""
    order = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Order)
    resource.setrlimit(resource.RLIMIT_AS, (order.memory_mb * 2**20,) * 2)
    resource.setrlimit(resource.RLIMIT_CPU, (order.cpu_s, order.cpu_s + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # decoders write to stdout now and then
    try:
        drawn = draw(order)
    except Exception:
        sys.exit(1)
    out.write(drawn)
    out.flush()


if __name__ == "__main__":
    main()
