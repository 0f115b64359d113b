"""Whatever comes over the wire, the contract reads it or says by a code why not; what it reads it writes again."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.config import Decode
from edge.contract.frames import Frame, pack
from edge.contract.reasons import REASONS
from edge.contract.topics import Channel
from edge.pixels.decoder import Decoder
from edge.pixels.decoder_protocol import Ready
from tests.fuzz.contract import check
from tests.fuzz.test_fuzz_decode import _CHANGES, changed

_HERE = Path(__file__).parent
_MESSAGES = [path.read_bytes() for path in sorted((_HERE.parent / "golden" / "messages").glob("*.json"))]
_TOPICS = [b"cxr/v1/clinic-1/result", b"cxr/v1/clinic-1/receipt"]
_BODY = pack([Frame(channel, message) for channel in Channel for message in _MESSAGES])
_SEEDS = [*_MESSAGES, *_TOPICS, _BODY, b"result 2\n{}\nstatus 3\n{} \n"]


@pytest.mark.parametrize("seed", range(len(_SEEDS)))
def test_the_seeds_hold(seed):
    check(_SEEDS[seed])


@given(st.sampled_from(_SEEDS), st.lists(_CHANGES, max_size=6))
@settings(max_examples=400, deadline=None)
def test_any_change_of_a_message_a_topic_or_a_body_holds(seed, changes):
    check(changed(seed, changes))


@given(st.binary(max_size=400))
@settings(max_examples=200, deadline=None)
def test_any_bytes_hold(content):
    check(content)


@pytest.mark.parametrize("path", sorted((_HERE / "found" / "contract").iterdir()), ids=lambda path: path.name)
def test_what_fuzzing_has_found_holds(path):
    check(path.read_bytes())


def test_every_file_that_fuzzing_has_found_ends_in_an_answer():
    decoder = Decoder(Decode(timeout_s=10.0, memory_mb=768))
    try:
        found = sorted((_HERE / "found" / "decode").iterdir())
        for path in found:
            answer = decoder.decode(path)
            assert isinstance(answer, Ready) or answer.reason in REASONS, path.name
    finally:
        decoder.close()
    assert len(found) > 20


@pytest.mark.soak
@given(st.sampled_from(_SEEDS), st.lists(_CHANGES, max_size=6))
@settings(max_examples=100_000, deadline=None)
def test_many_changes_hold(seed, changes):
    check(changed(seed, changes))
