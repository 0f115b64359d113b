"""The decoding process: file in, network input out. It may be ended or crash at any picture, and costs that picture alone.

`edge.pixels.decoder` starts it, by fork where that is safe and cheap, else as a program with the arguments MEMORY_MB CPU_SECONDS.
"""

from __future__ import annotations

import hashlib
import logging
import os
import resource
import select
import signal
import sys
import time
import warnings
from pathlib import Path
from typing import BinaryIO

import msgspec
from PIL import Image

from edge.errors import ImageError, Refused
from edge.names import printable
from edge.pixels.decode import Limits, decode_file
from edge.pixels.decoder_protocol import Answer, NotReady, Ready, Request, read_frame, write_frame
from edge.pixels.headers import NO_HEADERS, Headers
from edge.pixels.memory_limit import give_back, keep_nothing, limit_memory
from edge.pixels.preprocess import preprocess_image
from edge.pixels.quality import check_quality
from edge.unattended.hardening import forbid_core_dumps
from edge.unattended.out_of_memory import be_ended_first

_KEEP_MEMORY_S = 5.0
_KEEP_FROM_MB = 256
"""With less a board has none to keep: the page may draw a film before the next one comes."""


def answer(request: Request) -> Answer:
    """Decode, check and preprocess one file; every kind of bad input becomes a NotReady."""
    headers = NO_HEADERS

    def note(read: Headers) -> None:
        nonlocal headers
        headers = read

    path = Path(os.fsdecode(request.path))
    try:
        started = time.perf_counter()
        picture = decode_file(path, Limits(request.max_bytes, request.max_pixels), note)
        check_quality(picture)
        decoded = time.perf_counter()
        content = preprocess_image(picture.image).tobytes()
        width, height = picture.image.size
        # The network input and the size: the same film stored in another lossless way has the same digest.
        digest = hashlib.sha256(f"{width}x{height}:".encode() + content).hexdigest()
        finished = time.perf_counter()
        return Ready(content, digest, headers, (decoded - started) * 1e3, (finished - decoded) * 1e3)
    except ImageError as error:
        return NotReady(isinstance(error, Refused), error.reason, _anonymous(error.detail, path), headers)
    except MemoryError:
        return NotReady(False, "decoder_memory", "")
    except FileNotFoundError:
        raise
    except PermissionError:
        return NotReady(False, "not_readable")
    except IsADirectoryError:
        return NotReady(False, "folder")
    except Exception as error:
        return NotReady(False, "damaged", _anonymous(f"{type(error).__name__}: {error}", path), headers)


def serve(requests: BinaryIO, answers: BinaryIO, memory_mb: int, cpu_seconds: int) -> None:
    """Answer requests within the limits until the parent closes its end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which closes its end
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    be_ended_first()
    limit_memory(memory_mb * 2**20)
    forbid_core_dumps()
    # Decoders complain about damaged files with the file's name, which may be a patient's; what matters is in the answer.
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    decoder = msgspec.msgpack.Decoder(Request)
    keeps = memory_mb >= _KEEP_FROM_MB
    if keeps:
        # The memory of one picture is kept for the next: a film's thousand pages cost 3 ms to get anew and 1 ms to give back.
        Image.core.set_blocks_max(1)  # type: ignore[attr-defined]
    else:
        keep_nothing()
    while (content := _next_request(requests)) is not None:
        spent = resource.getrusage(resource.RUSAGE_SELF)
        soft = int(spent.ru_utime + spent.ru_stime) + cpu_seconds + 1
        resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.RLIM_INFINITY))
        write_frame(answers, msgspec.msgpack.encode(answer(decoder.decode(content))))
        if not keeps:
            give_back()


def _next_request(requests: BinaryIO) -> bytes | None:
    """Wait for a request; give the kept memory back when none comes for a while."""
    if not select.select([requests], [], [], _KEEP_MEMORY_S)[0]:
        Image.core.clear_cache()  # type: ignore[attr-defined]
        give_back()
    return read_frame(requests)


def _anonymous(detail: str, path: Path) -> str:
    """A detail ends in the log, and a file name may name the patient."""
    return printable(detail.replace(str(path), "the file").replace(path.name, "the file"))[:200]


if __name__ == "__main__":
    # Decoders write to stdout now and then; that must not end up between the frames.
    pipe_out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(sys.stdin.buffer, pipe_out, int(sys.argv[1]), int(sys.argv[2]))
