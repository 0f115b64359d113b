"""Whether the pictures of a site are still of the kind that its earlier ones were. Pure, a few hundred numbers of state.

Each picture's typicality gets its place among all earlier ones of the site, ties broken at random: while pictures come in no
particular order those places are independent and uniform, whatever the site's own distribution is (smoothed conformal p-values:
Vovk, Gammerman and Shafer 2005, "Algorithmic learning in a random world"). Against that bets are placed that win when places crowd
at one end, and their gains are summed over every picture at which the change may have come (the procedure of Shiryaev 1963 and
Roberts 1966 on a conformal test martingale; Vovk et al. 2021, "Retrain or not retrain: conformal test martingales for change-point
detection"). Without a change the sum after n pictures is n on average, so that, however often one looks, it reaches `once_in`
within n pictures with a probability of at most n / once_in, and after `once_in` pictures on average at the earliest.
"""

from __future__ import annotations

from bisect import bisect_left

# Densities b x^(b-1) on (0, 1), of the place or of one minus it: the smaller b, the more is won at that end, and lost elsewhere.
# The same is staked on each: two thirds on pictures that turn strange, all of them or a few, and a third on the contrary.
_LOW = (0.3, 0.5, 0.7, 0.85)
_HIGH = (0.5, 0.7)


class Drift:
    """The watch over one stretch of pictures; a new one begins with a new watch."""

    def __init__(self, once_in: float) -> None:
        """Args: once_in: an alarm without a change comes on average at the earliest after so many pictures."""
        self._once_in = once_in
        self._levels: list[float] = []
        self._counts: list[int] = []
        self._seen = 0
        self._sums = [0.0] * (len(_LOW) + len(_HIGH))

    def see(self, typicality: float, tie: float) -> bool:
        """Take in one picture; return whether the kind of pictures has changed.

        Args:
            typicality: 0 to 1, see `edge.network.typicality`.
            tie: uniform in (0, 1), independent of all else; the same when the same picture is taken in again after a restart.
        """
        place = self._place(typicality, tie)
        bets = [b * place ** (b - 1) for b in _LOW] + [b * (1 - place) ** (b - 1) for b in _HIGH]
        self._sums = [(1 + total) * bet for total, bet in zip(self._sums, bets, strict=True)]
        return self.evidence >= self._once_in

    @property
    def evidence(self) -> float:
        """The sum that is compared with `once_in`; see the module."""
        return sum(self._sums) / len(self._sums)

    def _place(self, typicality: float, tie: float) -> float:
        at = bisect_left(self._levels, typicality)
        if at == len(self._levels) or self._levels[at] != typicality:
            # A typicality is a multiple of one part in some hundreds: there are few levels, however many pictures come.
            self._levels.insert(at, typicality)
            self._counts.insert(at, 0)
        self._counts[at] += 1
        self._seen += 1
        return (sum(self._counts[:at]) + tie * self._counts[at]) / self._seen
