"""What the aggregator needs of a database: the seam, its values, and the two stores that are none (for tests and benchmarks)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from broker.ingest import Accepted, Rejected, Reported
from edge.contract.messages import Quarantined
from edge.contract.seqset import SeqSet

StreamKey: TypeAlias = tuple[str, str]
"""(device, epoch)"""

OutcomeKey: TypeAlias = tuple[str, str, int]
"""(device, epoch, seq)"""


@dataclass(slots=True)
class StreamChange:
    """What a batch changes about one stream. `through` is the watermark after the batch, `last_seq` what the device spoke of."""

    through: int
    last_seq: int = 0
    closed: bool = False


@dataclass(slots=True)
class DeviceChange:
    """What a batch changes about one device: when it was last heard (0 if only by a retained message), and its newest status."""

    seen_ms: int = 0
    report: Reported | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """Everything that goes into one transaction. `outcomes` holds each key once."""

    outcomes: list[Accepted] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    streams: dict[StreamKey, StreamChange] = field(default_factory=dict)
    devices: dict[str, DeviceChange] = field(default_factory=dict)


class Store(Protocol):
    """The database as the aggregator sees it. Only one aggregator may write to it.

    Each method raises StoreUnavailable when a later try may succeed, and StoreLocked when another aggregator has taken over.
    """

    def delivered(self, stream: StreamKey) -> SeqSet:
        """Return the committed seqs of a stream, quarantined ones included; empty if it is not known."""
        ...

    def payloads(self, keys: Collection[OutcomeKey]) -> Mapping[OutcomeKey, bytes]:
        """Return the bytes of those outcomes that are stored (quarantined ones are not)."""
        ...

    def quarantined(self, stream: StreamKey, first: int, limit: int) -> list[Quarantined]:
        """Return quarantined seqs from `first` on that have no stored outcome, in order, at most `limit`."""
        ...

    def commit(self, batch: Batch) -> None:
        """Make all of `batch` durable, or nothing. An outcome that is stored already changes nothing.

        Raises:
            StoreRefused: a row of the batch can never be stored.
        """
        ...


class NullStore:
    """Forgets everything: what the aggregator costs without a database."""

    def delivered(self, stream: StreamKey) -> SeqSet:
        """Return nothing."""
        return SeqSet()

    def payloads(self, keys: Collection[OutcomeKey]) -> Mapping[OutcomeKey, bytes]:
        """Return nothing."""
        return {}

    def quarantined(self, stream: StreamKey, first: int, limit: int) -> list[Quarantined]:
        """Return nothing."""
        return []

    def commit(self, batch: Batch) -> None:
        """Do nothing."""


class MemoryStore:
    """Keeps everything in dictionaries: the reference that the real stores are tested against."""

    def __init__(self) -> None:
        self.outcomes: dict[OutcomeKey, Accepted] = {}
        self.rejected: list[Rejected] = []
        self.streams: dict[StreamKey, StreamChange] = {}
        self.devices: dict[str, DeviceChange] = {}

    def delivered(self, stream: StreamKey) -> SeqSet:
        """Return the seqs of the stream."""
        change = self.streams.get(stream)
        kept = SeqSet(change.through if change else 0)
        for seq in self._seqs(stream):
            kept.add(seq)
        return kept

    def payloads(self, keys: Collection[OutcomeKey]) -> Mapping[OutcomeKey, bytes]:
        """Return the bytes of stored outcomes."""
        return {key: self.outcomes[key].payload for key in keys if key in self.outcomes}

    def quarantined(self, stream: StreamKey, first: int, limit: int) -> list[Quarantined]:
        """Return the quarantined seqs of the stream."""
        reasons = {
            odd.seq: odd.reason
            for odd in self.rejected
            if odd.delivered and (odd.device, odd.epoch) == stream and odd.seq is not None and odd.seq >= first
        }
        return [Quarantined(seq, reasons[seq]) for seq in sorted(reasons) if (*stream, seq) not in self.outcomes][:limit]

    def commit(self, batch: Batch) -> None:
        """Keep the batch."""
        for accepted in batch.outcomes:
            outcome = accepted.outcome
            self.outcomes.setdefault((outcome.device, outcome.epoch, outcome.seq), accepted)
        known = {(odd.topic, odd.payload) for odd in self.rejected}
        self.rejected += [odd for odd in batch.rejected if (odd.topic, odd.payload) not in known]
        for stream, change in batch.streams.items():
            kept = self.streams.setdefault(stream, StreamChange(0))
            kept.through = max(kept.through, change.through)
            kept.last_seq = max(kept.last_seq, change.last_seq)
            kept.closed = kept.closed or change.closed
        for device, news in batch.devices.items():
            self.devices[device] = DeviceChange(
                max(news.seen_ms, self.devices.get(device, DeviceChange()).seen_ms),
                news.report or self.devices.get(device, DeviceChange()).report,
            )

    def _seqs(self, stream: StreamKey) -> Iterable[int]:
        yield from (seq for device, epoch, seq in self.outcomes if (device, epoch) == stream)
        yield from (odd.seq for odd in self.rejected if odd.delivered and (odd.device, odd.epoch) == stream and odd.seq is not None)
