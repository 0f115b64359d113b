"""What the device and its decoding process say to each other: four bytes of length, then msgpack, over a pipe."""

from __future__ import annotations

import os
import select
import struct
import time
from typing import IO

import msgspec

from edge.pixels.headers import NO_HEADERS, Headers

MAX_FRAME = 16 * 1024 * 1024

_LENGTH = struct.Struct(">I")
_PIPE_BYTES = 1 << 16


class Request(msgspec.Struct, frozen=True):
    """One file to read; `path` is bytes, because a file name need not be text."""

    path: bytes
    max_bytes: int
    max_pixels: int


class Ready(msgspec.Struct, frozen=True, tag=True):
    """A picture that may be classified; `pixels` is the network's input, side x side bytes."""

    pixels: bytes
    pixel_digest: str
    headers: Headers
    decode_ms: float
    preprocess_ms: float


class NotReady(msgspec.Struct, frozen=True, tag=True):
    """A picture without an answer: refused by the quality gate, or not readable at all."""

    refused: bool
    reason: str
    detail: str = ""
    headers: Headers = NO_HEADERS


Answer = Ready | NotReady


def frame(content: bytes) -> bytes:
    """Return one message as it goes through the pipe."""
    return _LENGTH.pack(len(content)) + content


def write_frame(pipe: IO[bytes], content: bytes) -> None:
    """Write one message and flush it."""
    pipe.write(frame(content))
    pipe.flush()


def read_frame(pipe: IO[bytes]) -> bytes | None:
    """Return one message, or None when the other end has closed.

    Raises:
        ValueError: if the length is impossible, which means that something else wrote into the pipe.
    """
    head = pipe.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    length = _length(head)
    content = pipe.read(length)
    return content if len(content) == length else None


def await_frame(pipe: int, deadline: float) -> memoryview:
    """Return the content of one message from a file descriptor in which there is never more than one.

    Args:
        pipe: what is read from.
        deadline: on the clock of `time.monotonic`.

    Raises:
        TimeoutError: if the whole of it was not there in time.
        EOFError: if the other end closed before.
        ValueError: if the length is impossible, which means that something else wrote into the pipe.
    """
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    whole = bytearray()
    while len(whole) < _LENGTH.size or len(whole) < _LENGTH.size + _length(whole[: _LENGTH.size]):
        left = deadline - time.monotonic()
        if left <= 0 or not poll.poll(left * 1e3):
            raise TimeoutError
        part = os.read(pipe, _PIPE_BYTES)
        if not part:
            raise EOFError
        whole += part
    return memoryview(whole)[_LENGTH.size :]


def _length(head: bytes | bytearray) -> int:
    (length,) = _LENGTH.unpack(head)
    if length > MAX_FRAME:
        raise ValueError(f"a frame of {length} bytes")
    return int(length)
