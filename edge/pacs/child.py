"""The process that makes the objects of one outcome and sends them; it lives while there is something to send.

What it loads (pydicom, highdicom, pynetdicom, Pillow) takes 90 MB, and a film may be one that kills decoders. The process that
waits for outcomes (`edge.pacs.messenger`) stays small and outlives both.
"""

from __future__ import annotations

import gc
import os
import resource
import signal
import sys
from pathlib import Path

import msgspec
from pydicom.dataset import Dataset

from edge.contract.codec import decode_outcome
from edge.contract.messages import AnyOutcome, Result
from edge.dicom.listener import be_silent
from edge.errors import CxrError, ImageError
from edge.pacs.capture import make_capture
from edge.pacs.drawing import draw_answer
from edge.pacs.orders import PICTURE, Echo, Order, Sent
from edge.pacs.report import make_report
from edge.pacs.storing import BrokeOff, NotTaken, associated, echo, store, takes
from edge.pacs.study import find_header
from edge.pixels.decode import Limits, decode_file
from edge.pixels.decoder_protocol import read_frame, write_frame
from edge.pixels.memory_limit import limit_memory
from edge.unattended.hardening import forbid_core_dumps
from edge.unattended.lifecycle import end_with
from edge.unattended.out_of_memory import be_ended_first


def carry(order: Order) -> Sent:
    """Make the objects of an order and send them, the report first: it is what counts.

    Where the association ends over one, the other gets an association of its own.
    """
    outcome = decode_outcome(order.outcome)
    film = Path(order.film) if order.film else None
    try:
        header = find_header(order.header, film)
    except ImageError as error:
        return Sent(nothing=error.detail)
    taken: list[str] = []
    refused: dict[str, str] = {}
    broken: dict[str, str] = {}
    left = sorted(order.kinds)
    try:
        while left:
            with associated(order.link, order.kinds) as association:
                while left:
                    kind = left.pop()
                    data = _made(order, kind, header, outcome, film)
                    if data is None:
                        continue
                    try:
                        store(association, kind, data)
                        taken.append(kind)
                    except NotTaken as error:
                        refused[kind] = str(error)
                    except BrokeOff as error:
                        broken[kind] = str(error)
                        break
    except CxrError as error:
        return Sent(taken=tuple(taken), refused=refused, broken=broken, away=str(error))
    return Sent(taken=tuple(taken), refused=refused, broken=broken)


def ask(link: Echo) -> Sent:
    """Say whether the PACS is there, and what it takes of what is to be sent."""
    kinds = link.kinds
    try:
        with associated(link.link, kinds) as association:
            echo(association)
            return Sent(
                taken=tuple(kind for kind in kinds if takes(association, kind)),
                refused={kind: "not accepted" for kind in kinds if not takes(association, kind)},
            )
    except CxrError as error:
        return Sent(away=str(error))


def _made(order: Order, kind: str, header: Dataset, outcome: AnyOutcome, film: Path | None) -> Dataset | None:
    if kind != PICTURE:
        return make_report(header, outcome, decode_outcome(order.voided) if order.voided else None)
    if film is None or not isinstance(outcome, Result):
        return None
    try:
        image = decode_file(film, Limits(order.max_bytes, order.max_pixels)).image
    except (
        ImageError,
        MemoryError,
        OSError,
    ):  # removed for room just now, damaged, or too large for here: the report is what counts
        return None
    heated = order.heat is not None and not outcome.abstained
    return make_capture(header, film, outcome, draw_answer(image, outcome, order.heat), heated)


def main() -> None:
    """Do what comes on standard input, within MEMORY_MB and CPU_SECONDS for each order, until it ends."""
    parent, memory_mb, cpu_s = map(int, sys.argv[1:])
    end_with(parent, signal.SIGKILL)
    # The whole group may get them. What is in hand is finished all the same, and then the parent ends this.
    for asked in (signal.SIGTERM, signal.SIGINT):
        signal.signal(asked, signal.SIG_IGN)
    be_ended_first()
    limit_memory(memory_mb * 2**20)
    forbid_core_dumps()
    be_silent()
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # decoders write to stdout now and then
    orders = msgspec.msgpack.Decoder(Order | Echo)
    while (content := read_frame(sys.stdin.buffer)) is not None:
        spent = resource.getrusage(resource.RUSAGE_SELF)
        resource.setrlimit(resource.RLIMIT_CPU, (int(spent.ru_utime + spent.ru_stime) + cpu_s + 1, resource.RLIM_INFINITY))
        try:
            order = orders.decode(content)
            sent = ask(order) if isinstance(order, Echo) else carry(order)
        except Exception as error:  # what a library raises may quote a value of the object, as a name
            sys.stderr.write(f"cxr-pacs: an answer could not be made ({type(error).__name__})\n")
            sys.exit(1)
        write_frame(out, msgspec.msgpack.encode(sent))
        gc.collect()  # a film in a ring of references would stay beside the next one


if __name__ == "__main__":
    main()
