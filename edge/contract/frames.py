r"""Many messages in one piece, for the ways to the centre that are not MQTT: a gzip stream of frames.

A frame is `<channel> <length>\n<payload>\n`: the channel as in the topics, the length in bytes as decimal digits, and the very
bytes that MQTT would carry. Reading is bounded: neither a frame nor what a small body inflates to can fill the memory.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from edge.contract.errors import ContractError
from edge.contract.messages import MAX_BYTES
from edge.contract.topics import Channel

MAX_RESULTS = 500
"""Outcomes in one HTTPS exchange."""

MAX_FRAMES = MAX_RESULTS + 20
"""Frames in one HTTPS exchange: the outcomes, and what goes with them."""

MAX_BODY = 256 * 1024
"""Bytes of one compressed HTTPS body."""

MAX_PAYLOAD = 2 * MAX_BYTES
"""Bytes of one payload. Twice the contract's limit lets a wrong one through to the quarantine, as the broker does."""

_LONGEST_HEAD = 24
_HEAD = re.compile(rb"([a-z]{1,10}) (\d{1,5})\n")
_GZIP = 16 + zlib.MAX_WBITS
_STEP = 64 * 1024
_CHANNELS = {channel.value.encode(): channel for channel in Channel}


class Frame(NamedTuple):
    """One message and the channel that it belongs to."""

    channel: Channel
    payload: bytes


class FrameWriter:
    """Compresses frames one after the other."""

    def __init__(self) -> None:
        self._gzip = zlib.compressobj(6, zlib.DEFLATED, _GZIP)

    def add(self, frame: Frame) -> bytes:
        """Return what is ready to be written; often nothing."""
        return self._gzip.compress(b"%s %d\n%s\n" % (frame.channel.value.encode(), len(frame.payload), frame.payload))

    def finish(self) -> bytes:
        """Return the rest."""
        return self._gzip.flush()


class FrameReader:
    """Takes a gzip stream in pieces of any size and gives back its frames, never holding more than one and a step."""

    def __init__(self, *, most: int, most_bytes: int) -> None:
        """Args: most: frames allowed; most_bytes: bytes allowed once inflated."""
        self._gunzip = zlib.decompressobj(_GZIP)
        self._buffer = bytearray()
        self._frames_left = most
        self._bytes_left = most_bytes

    def feed(self, piece: bytes) -> Iterator[Frame]:
        """Yield the frames that are complete now.

        Raises:
            ContractError: `not_gzip`, `bad_frame` or `too_large`; nothing more can be read then.
        """
        while piece:
            try:
                inflated = self._gunzip.decompress(piece, _STEP)
            except zlib.error as error:
                raise ContractError("not_gzip", str(error)) from None
            piece = self._gunzip.unconsumed_tail
            self._bytes_left -= len(inflated)
            if self._bytes_left < 0:
                raise ContractError("too_large", "it inflates to more than the contract allows")
            self._buffer += inflated
            yield from self._complete()
        if self._gunzip.unused_data:
            raise ContractError("not_gzip", "something follows the end of the stream")

    def finish(self) -> None:
        """Check that the stream ended where a frame ended.

        Raises:
            ContractError: `truncated` if it did not.
        """
        if not self._gunzip.eof or self._buffer:
            raise ContractError("truncated", "the stream ends in the middle")

    def _complete(self) -> Iterator[Frame]:
        start = 0
        while head := _HEAD.match(self._buffer, start):
            channel, length = _CHANNELS.get(head[1]), int(head[2])
            if channel is None or length > MAX_PAYLOAD:
                raise ContractError("bad_frame", f"no channel, or more than {MAX_PAYLOAD} bytes: {bytes(head[0])!r}")
            end = head.end() + length
            if len(self._buffer) <= end:
                break
            if self._buffer[end] != ord("\n"):
                raise ContractError("bad_frame", "a payload is longer or shorter than its frame says")
            self._frames_left -= 1
            if self._frames_left < 0:
                raise ContractError("too_large", "more messages than the contract allows")
            yield Frame(channel, bytes(self._buffer[head.end() : end]))
            start = end + 1
        else:
            if len(self._buffer) - start > _LONGEST_HEAD:
                raise ContractError("bad_frame", "what follows is no frame")
        del self._buffer[:start]


def pack(frames: Iterable[Frame]) -> bytes:
    """Return the body of one HTTPS exchange; the caller looks after `MAX_BODY` and `MAX_FRAMES`."""
    writer = FrameWriter()
    return b"".join([*(writer.add(frame) for frame in frames), writer.finish()])


def unpack(body: bytes) -> list[Frame]:
    """Return the frames of one HTTPS exchange.

    Raises:
        ContractError: `too_large`, `not_gzip`, `bad_frame` or `truncated`.
    """
    if len(body) > MAX_BODY:
        raise ContractError("too_large", f"{len(body)} bytes, the contract allows {MAX_BODY}")
    reader = FrameReader(most=MAX_FRAMES, most_bytes=MAX_FRAMES * (MAX_BYTES + _LONGEST_HEAD))
    frames = list(reader.feed(body))
    reader.finish()
    return frames
