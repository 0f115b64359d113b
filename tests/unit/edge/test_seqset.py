import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.contract.seqset import SeqSet

seqs = st.integers(1, 40)
ranges = st.tuples(seqs, seqs).map(sorted).map(tuple)


def as_set(held: SeqSet) -> set[int]:
    return set(range(1, held.through + 1)) | {seq for first, last in held.ranges for seq in range(first, last + 1)}


@given(st.lists(seqs | ranges, max_size=40))
def test_it_is_a_set(steps):
    held, model = SeqSet(), set()
    for step in steps:
        if isinstance(step, int):
            assert held.add(step) == (step not in model)
            model.add(step)
        else:
            held.add_range(*step)
            model |= set(range(step[0], step[1] + 1))
        assert as_set(held) == model
        assert [seq for seq in range(45) if seq in held] == sorted(model)
    # The shape: the watermark is as far as it goes, ranges are sorted, disjoint and not adjacent.
    edges = [(0, held.through), *held.ranges]
    assert all(first > last + 1 for (_, last), (first, _) in itertools.pairwise(edges))
    assert SeqSet(held.through, held.ranges) == held


@given(st.lists(ranges, max_size=10), st.integers(0, 45))
def test_holes_are_what_is_missing(parts, last):
    held = SeqSet(0, parts)
    missing = {seq for first, end in held.holes(last) for seq in range(first, end + 1)}
    assert missing == set(range(1, last + 1)) - as_set(held)


def test_a_range_must_make_sense():
    for first, last in ((0, 1), (5, 4)):
        with pytest.raises(ValueError, match="no range"):
            SeqSet().add_range(first, last)
