"""Frames: what goes in comes out, in pieces of any size, and nothing that comes in can fill the memory."""

import contextlib
import gzip
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.contract.errors import ContractError
from edge.contract.frames import MAX_BODY, MAX_FRAMES, MAX_PAYLOAD, Frame, FrameReader, pack, unpack
from edge.contract.topics import Channel

frames = st.lists(st.builds(Frame, st.sampled_from(Channel), st.binary(max_size=300)), max_size=20)


def refused(body, reason):
    with pytest.raises(ContractError) as caught:
        unpack(body)
    assert caught.value.reason == reason


@given(frames)
def test_what_is_packed_comes_back_to_the_byte(given_frames):
    assert unpack(pack(given_frames)) == given_frames


@given(frames, st.integers(1, 50))
def test_the_size_of_the_pieces_does_not_matter(given_frames, size):
    body, reader = pack(given_frames), FrameReader(most=20, most_bytes=10_000)
    read = [frame for start in range(0, len(body), size) for frame in reader.feed(body[start : start + size])]
    reader.finish()
    assert read == given_frames


@given(frames.filter(bool), st.data())
def test_a_body_that_was_cut_or_changed_is_never_taken_for_whole(given_frames, data):
    body = pack(given_frames)
    with pytest.raises(ContractError):
        unpack(body[: data.draw(st.integers(0, len(body) - 1))])
    place = data.draw(st.integers(len(body) - 8, len(body) - 1))  # checksum and length
    changed = bytearray(body)
    changed[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(ContractError):
        unpack(bytes(changed))


@given(st.binary(max_size=500))
def test_any_bytes_give_frames_or_a_reason(content):
    for body in (content, gzip.compress(content)):
        with contextlib.suppress(ContractError):
            unpack(body)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"result 3\nabcd\n", "bad_frame"),
        (b"result 3\nab\n", "truncated"),
        (b"result 3\nabc", "truncated"),
        (b"nobody 3\nabc\n", "bad_frame"),
        (b"result -3\nabc\nresult 3\nabc\n", "bad_frame"),
        (b"result " + b"9" * 40, "bad_frame"),
        (b"result %d\n" % (MAX_PAYLOAD + 1) + b"a" * (MAX_PAYLOAD + 1) + b"\n", "bad_frame"),
        (b"hello 0\n\n" * (MAX_FRAMES + 1), "too_large"),
        (b"\n" * 100, "bad_frame"),
        (b"result 3", "truncated"),
    ],
)
def test_what_is_no_frame_is_refused(content, reason):
    refused(gzip.compress(content), reason)


def test_what_is_not_one_gzip_stream_is_refused():
    body = pack([Frame(Channel.HELLO, b"{}")])
    refused(body + b"x", "not_gzip")
    refused(zlib.compress(b"hello 2\n{}\n"), "not_gzip")
    refused(b"\0" * (MAX_BODY + 1), "too_large")
    assert unpack(body) == [Frame(Channel.HELLO, b"{}")]


def test_a_bomb_is_refused_before_it_fills_the_memory():
    writer = zlib.compressobj(9, zlib.DEFLATED, 31)
    frame = b"result 8000\n" + b" " * 8000 + b"\n"
    bomb = b"".join(writer.compress(frame) for _ in range(10_000)) + writer.flush()
    assert len(bomb) < MAX_BODY, "80 MB"
    tracemalloc.start()
    try:
        refused(bomb, "too_large")
        assert tracemalloc.get_traced_memory()[1] < 16 * 2**20
    finally:
        tracemalloc.stop()
    one = gzip.compress(b"\0" * 100_000_000)
    assert len(one) < MAX_BODY
    refused(one, "bad_frame")


def test_few_messages_that_are_all_too_long_are_refused_too():
    refused(pack([Frame(Channel.RESULT, b" " * MAX_PAYLOAD)] * (MAX_FRAMES // 2 + 4)), "too_large")


def test_a_full_batch_of_the_longest_messages_is_taken():
    unpack(pack([Frame(Channel.RESULT, b"{" + b" " * 8190 + b"}")] * MAX_FRAMES))
