import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.contract.seqset import SeqSet
from edge.contract.types import MAX_SEQ

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


@given(st.lists(ranges, max_size=12), st.integers(1, 45), st.integers(1, 5))
def test_a_window_says_where_it_is_the_whole(parts, seq, most):
    held = SeqSet(0, parts)
    found, within = held.window(seq, most)
    assert len(found) == min(most, held.range_count)
    assert (within is None) == (len(found) == len(held.ranges))
    first, last = within or (1, MAX_SEQ)
    assert [span for span in held.ranges if first <= span[0] and span[1] <= last] == found
    later = [span for span in held.ranges if span[1] >= seq]
    assert set(later[:most]) <= set(found), "what follows comes first"
    assert not within or first <= found[0][0] <= found[-1][1] <= last
    assert [held.range_of(one) for one in range(held.through + 1, 45)] == [
        next((span for span in held.ranges if span[0] <= one <= span[1]), None) for one in range(held.through + 1, 45)
    ]
