"""A set of seqs as a contiguous watermark and the ranges beyond it: what a receipt says and what the aggregator remembers."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

from edge.contract.types import MAX_SEQ


class SeqSet:
    """Seqs 1..`through`, and disjoint, sorted, inclusive `ranges` beyond it; never adjacent to each other.

    Memory grows with the number of holes, not with the number of seqs.
    """

    __slots__ = ("_firsts", "_lasts", "through")

    def __init__(self, through: int = 0, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self.through = through
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        for first, last in ranges:
            self.add_range(first, last)

    @property
    def ranges(self) -> list[tuple[int, int]]:
        """The inclusive ranges beyond the watermark, in order."""
        return list(zip(self._firsts, self._lasts, strict=True))

    @property
    def range_count(self) -> int:
        """How many ranges there are beyond the watermark."""
        return len(self._firsts)

    def window(self, seq: int, most: int) -> tuple[list[tuple[int, int]], tuple[int, int] | None]:
        """Return at most `most` neighbouring ranges, and (first, last) between which they are all that there is; None: everywhere.

        They begin with the one that holds or follows `seq`; with earlier ones if too few follow.
        """
        start = max(0, min(bisect_left(self._lasts, seq), len(self._firsts) - most))
        end = start + most
        ranges = list(zip(self._firsts[start:end], self._lasts[start:end], strict=True))
        if len(ranges) == len(self._firsts):
            return ranges, None
        return ranges, (ranges[0][0] if start else 1, ranges[-1][1] if end < len(self._firsts) else MAX_SEQ)

    def range_of(self, seq: int) -> tuple[int, int] | None:
        """Return the range beyond the watermark that holds `seq`, if one does."""
        at = bisect_right(self._firsts, seq) - 1
        return (self._firsts[at], self._lasts[at]) if at >= 0 and seq <= self._lasts[at] else None

    def __contains__(self, seq: int) -> bool:
        if seq <= self.through:
            return seq >= 1
        return self.range_of(seq) is not None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SeqSet) and self.through == other.through and self.ranges == other.ranges

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __repr__(self) -> str:
        return f"SeqSet({self.through}, {self.ranges})"

    def add(self, seq: int) -> bool:
        """Add one seq; return whether it was new."""
        if seq == self.through + 1 and not self._firsts:  # the common case: in order, no holes
            self.through = seq
            return True
        if seq in self:
            return False
        self.add_range(seq, seq)
        return True

    def add_range(self, first: int, last: int) -> None:
        """Add `first`..`last` inclusive; seqs already present are fine.

        Raises:
            ValueError: if first < 1 or last < first.
        """
        if first < 1 or last < first:
            raise ValueError(f"no range of seqs: {first}..{last}")
        low = bisect_right(self._firsts, first) - 1
        if low < 0 or self._lasts[low] < first - 1:
            low += 1
        high = low
        while high < len(self._firsts) and self._firsts[high] <= last + 1:
            first = min(first, self._firsts[high])
            last = max(last, self._lasts[high])
            high += 1
        self._firsts[low:high] = [first]
        self._lasts[low:high] = [last]
        if self._firsts[0] <= self.through + 1:
            self.through = max(self.through, self._lasts.pop(0))
            self._firsts.pop(0)
            while self._firsts and self._firsts[0] <= self.through + 1:
                self.through = max(self.through, self._lasts.pop(0))
                self._firsts.pop(0)

    def holes(self, last: int) -> Iterator[tuple[int, int]]:
        """Yield the inclusive ranges up to `last` that are not in the set."""
        expected = self.through + 1
        for first, end in self.ranges:
            if expected > last:
                return
            if expected < first:
                yield expected, min(first - 1, last)
            expected = end + 1
        if expected <= last:
            yield expected, last
