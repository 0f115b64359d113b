"""What the device and its decoding process say to each other: four bytes of length, then msgpack, over a pipe."""

from __future__ import annotations

import struct
from typing import BinaryIO

import msgspec

from edge.headers import NO_HEADERS, Headers

LENGTH = struct.Struct(">I")
MAX_FRAME = 16 * 1024 * 1024


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


def write_frame(pipe: BinaryIO, content: bytes) -> None:
    """Write one message and flush it."""
    pipe.write(LENGTH.pack(len(content)) + content)
    pipe.flush()


def read_frame(pipe: BinaryIO) -> bytes | None:
    """Return one message, or None when the other end has closed.

    Raises:
        ValueError: if the length is impossible, which means that something else wrote into the pipe.
    """
    head = pipe.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    length = frame_length(head)
    content = pipe.read(length)
    return content if len(content) == length else None


def frame_length(head: bytes | bytearray) -> int:
    """Return the length that four bytes announce. Raises ValueError beyond `MAX_FRAME`."""
    (length,) = LENGTH.unpack(head)
    if length > MAX_FRAME:
        raise ValueError(f"a frame of {length} bytes")
    return int(length)
