"""What has to hold for every byte string that comes over the wire: it is a message, or a ContractError with a code says why not."""

from __future__ import annotations

import contextlib
import re
import zlib

from edge.contract import codec, topics
from edge.contract.errors import ContractError
from edge.contract.frames import MAX_FRAMES, Frame, FrameReader, pack, unpack
from edge.contract.messages import MAX_BYTES
from edge.contract.topics import Channel

DECODERS = (
    codec.decode_outcome, codec.decode_status, codec.decode_hello, codec.decode_receipt, codec.decode_command, codec.decode_reply,
)  # fmt: skip
_CODE = re.compile(r"[a-z_]{4,20}")


def check(content: bytes) -> None:
    """Read `content` as everything that the contract knows. Raises AssertionError if a promise of the contract is broken."""
    for decode in DECODERS:
        with _refused():
            message = decode(content)
            with _refused():  # what was written more densely than this software does may be too long for it
                assert decode(codec.encode(message)) == message
    with _refused():
        device, channel = topics.parse(content.decode("utf-8", "replace"))
        assert topics.parse(topics.topic(device, channel)) == (device, channel)
    for body in (content, zlib.compress(content, 1, 31)):
        frames = None
        with _refused():
            frames = unpack(body)
            assert len(frames) <= MAX_FRAMES
            assert unpack(pack(frames)) == frames
        assert _in_pieces(body) == frames
    if content:
        frame = Frame(Channel.RESULT, content[:MAX_BYTES])
        assert unpack(pack([frame, frame])) == [frame, frame]


def _in_pieces(body: bytes) -> list[Frame] | None:
    """Read a body piece by piece; None if it is refused, as the whole of it is."""
    reader = FrameReader(most=MAX_FRAMES, most_bytes=MAX_FRAMES * (MAX_BYTES + 24))
    frames: list[Frame] = []
    try:
        for start in range(0, len(body), max(1, len(body) // 7)):
            frames += reader.feed(body[start : start + max(1, len(body) // 7)])
        reader.finish()
    except ContractError:
        return None
    return frames


@contextlib.contextmanager
def _refused() -> object:
    reason = "none"
    try:
        yield
    except ContractError as error:
        reason = error.reason
    assert _CODE.fullmatch(reason), reason
