"""Whatever a file holds, the decoding process answers with a picture or a known reason, names nobody, and reads the next file."""

import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge.config import Decode
from edge.contract.reasons import REASONS
from edge.pixels.decoder import Decoder
from edge.pixels.decoder_protocol import Ready
from tests.fuzz.corpus import SECRET, write_corpus
from tests.support.clinic import small_picture

_NUMBERS = (0, 1, 2, 7, 8, 9, 12, 16, 17, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 0x7FFFFFFF, 0xFFFFFFFF)
_GEOMETRY = (0x02, 0x08, 0x10, 0x11, 0x100, 0x101, 0x102, 0x103, 0x106, 0x107, 0x120, 0x121, 0x1050, 0x1051, 0x1052, 0x1053)
"""Elements of group 0028 that say how pixels are laid out and shown."""

_PLACES = st.floats(0, 1, exclude_max=True)
_CHANGES = st.one_of(
    st.tuples(st.just("flip"), _PLACES, st.integers(0, 7)),
    st.tuples(st.just("early flip"), _PLACES, st.integers(0, 7)),
    st.tuples(st.just("number"), _PLACES, st.sampled_from(_NUMBERS)),
    st.tuples(st.just("element"), st.sampled_from(_GEOMETRY), st.sampled_from(_NUMBERS)),
    st.tuples(st.just("drop"), _PLACES, st.integers(1, 64)),
    st.tuples(st.just("repeat"), _PLACES, st.integers(1, 64)),
    st.tuples(st.just("cut"), _PLACES, st.just(0)),
)


def changed(content: bytes, changes: list[tuple[str, float, int]]) -> bytes:
    """Apply changes: what to do, where as a share of the file (or which element), and a number."""
    new = bytearray(content)
    for what, where, number in changes:
        at = int(where * len(new)) if where < 1 else 0
        if what == "flip" and new:
            new[at] ^= 1 << number
        elif what == "early flip" and new:
            new[at // 8] ^= 1 << number
        elif what == "number":
            new[at : at + 4] = number.to_bytes(4, "little" if number % 2 else "big")
        elif what == "element":
            place = new.find(b"\x28\x00" + int(where).to_bytes(2, "little"))
            if place >= 0:
                new[place + 8 : place + 10] = (number & 0xFFFF).to_bytes(2, "little")
        elif what == "drop":
            del new[at : at + number]
        elif what == "repeat":
            new[at:at] = new[at : at + number] * 8
        elif what == "cut":
            del new[at:]
    return bytes(new)


class Fuzzed:
    """A decoding process, the files to start from and one that is whole."""

    def __init__(self, folder):
        self.decoder = Decoder(Decode(timeout_s=10.0, memory_mb=768))
        self.seeds = [path.read_bytes() for path in write_corpus(folder / "corpus")]
        self.path = folder / f"{SECRET}.dcm"
        self.good = small_picture(folder / "good.png", 1)
        self.digest = self.decoder.decode(self.good).pixel_digest

    def check(self, which, changes):
        self.path.write_bytes(changed(self.seeds[which % len(self.seeds)], changes))
        answer = self.decoder.decode(self.path)
        if not isinstance(answer, Ready):
            assert answer.reason in REASONS
            assert not re.search("zanz|quetz", answer.detail, re.IGNORECASE)
            assert self.decoder.decode(self.good).pixel_digest == self.digest

    def __repr__(self):
        return "a decoding process"


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory):
    fuzzed = Fuzzed(tmp_path_factory.mktemp("fuzz"))
    yield fuzzed
    fuzzed.decoder.close()


_CASES = {"which": st.integers(0, 20), "changes": st.lists(_CHANGES, min_size=1, max_size=6)}


def test_every_seed_is_a_picture_before_it_is_changed(fuzzed):
    for which in range(len(fuzzed.seeds)):
        fuzzed.path.write_bytes(fuzzed.seeds[which])
        assert fuzzed.decoder.decode(fuzzed.path).reason == "too_small"  # decoded, and then the gate looks at its size
    assert len(fuzzed.seeds) == 21


@given(**_CASES)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_change_of_a_file_ends_in_an_answer(fuzzed, which, changes):
    fuzzed.check(which, changes)


@pytest.mark.soak
@given(**_CASES)
@settings(max_examples=30_000, deadline=None)
def test_many_changes_end_in_an_answer(fuzzed, which, changes):
    fuzzed.check(which, changes)
