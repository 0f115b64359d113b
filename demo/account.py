"""Is every picture accounted for? The device knows which file became which seq, the centre's database which seqs it holds."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from broker.reader import Reader, StoredOutcome
from edge.contract.messages import Failure, Refusal, Result
from edge.contract.reasons import advice
from edge.errors import OutboxError
from edge.outbox.reader import OutboxReader


@dataclass
class Account:
    """What has arrived at the centre. Fed by `look`, which returns only what is new."""

    reader: Reader
    state: Path
    device: str
    arrived: dict[int, StoredOutcome] = field(default_factory=dict)
    _newest: int = 0

    def look(self) -> list[tuple[str, StoredOutcome]]:
        """Return (file name, outcome) of what arrived since the last look, oldest first."""
        new: list[StoredOutcome] = []
        before = None
        while page := self.reader.outcomes(device=self.device, before=before, limit=200):
            fresh = [row for row in page if row.id > self._newest]
            new += fresh
            before = page[-1].id
            if len(fresh) < len(page):
                break
        if not new:
            return []
        self._newest = max(row.id for row in new)
        names = {seq: name for name, seq in self.seq_of_files().items()}
        self.arrived.update((row.seq, row) for row in new)
        return [(names.get(row.seq, "?"), row) for row in sorted(new, key=lambda row: row.id)]

    def seq_of_files(self) -> dict[str, int]:
        """Return the seq of each file that has its outcome on the device."""
        if not (self.state / "outbox.db").exists():
            return {}
        try:
            outbox = OutboxReader(self.state / "outbox.db", self.device)
        except OutboxError:
            return {}  # it is only just being made
        try:
            return outbox.seq_of_files()
        finally:
            outbox.close()

    def missing(self, files: list[str]) -> list[str]:
        """Return the files whose outcome is not in the centre's database."""
        seqs = self.seq_of_files()
        return [name for name in files if seqs.get(name) not in self.arrived]

    def table(self, files: list[str]) -> list[str]:
        """Return the closing table: how many pictures ended how."""
        seqs = self.seq_of_files()
        ends = Counter(_end(self.arrived[seqs[name]]) for name in files if seqs.get(name) in self.arrived)
        width = max((len(end) for end in ends), default=10)
        lines = [f"  {end:<{width}}  {count:>6}" for end, count in sorted(ends.items(), key=lambda item: -item[1])]
        again = len(files) - len({seqs[name] for name in files if name in seqs}) - len([name for name in files if name not in seqs])
        if again:
            lines.append(f"  ({again} of them carry the SOP Instance UID and picture of an earlier file and share its outcome)")
        return lines


def line(name: str, row: StoredOutcome) -> str:
    """Return one line about an outcome that arrived."""
    outcome = row.outcome
    if isinstance(outcome, Result):
        answer = "not sure: have a radiologist look" if outcome.abstained else outcome.label
        chances = " ".join(f"{label} {value:.2f}" for label, value in outcome.probabilities.items())
        return f"{row.seq:>5}  {name[:44]:<44}  {answer} ({chances})"
    if isinstance(outcome, Refusal | Failure):
        return f"{row.seq:>5}  {name[:44]:<44}  {row.kind}: {' '.join(advice(reason) for reason in outcome.reasons)}"
    return f"{row.seq:>5}  {name[:44]:<44}  {row.kind}"


def _end(row: StoredOutcome) -> str:
    outcome = row.outcome
    if isinstance(outcome, Result):
        return "not sure" if outcome.abstained else f"answered: {outcome.label}"
    if isinstance(outcome, Refusal | Failure):
        return f"{row.kind}: {', '.join(outcome.reasons)}"
    return row.kind
