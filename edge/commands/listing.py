"""What the outbox holds, as lines for a person or a script on the device itself."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from edge.contract.codec import recorded_outcome
from edge.contract.messages import AnyOutcome, Result, Void
from edge.contract.reasons import AID, NOT_SURE, advice
from edge.names import on_one_line
from edge.outbox.reader import OutboxReader, epoch_and_seq

DAMAGED = "damaged on this device, and cannot be read here. Have a radiologist look at the film"


def listing_lines(outbox: OutboxReader, limit: int, *, everything: bool, as_json: bool) -> Iterator[str]:
    """Yield one line for each outcome, newest first, and for people a line of counts before them."""
    if not as_json:
        yield f"{outbox.device}: {outbox.last_seq()} outcomes, {outbox.waiting()} wait for the centre's receipt"
        yield AID
    voided, streams = outbox.voided(), outbox.streams()
    for row in outbox.listing(limit, waiting_only=not everything):
        name = epoch, seq = epoch_and_seq(streams, row["number"])
        outcome = recorded_outcome(row["payload"])
        state = (
            f"kept apart by the centre: {row['quarantined']}"
            if row["quarantined"]
            else "receipted"
            if row["receipted"]
            else "waits"
        )
        if as_json:
            yield msgspec.json.encode(
                {
                    "seq": seq,
                    "epoch": epoch,
                    "kind": row["kind"],
                    "receipted": bool(row["receipted"]),
                    "quarantined": row["quarantined"],
                    "original_name": row["original_name"],
                    "place": row["place"],
                    "voided": name in voided,
                    "damaged": outcome is None,
                }
            ).decode()
            continue
        said = "taken back; do not use it" if name in voided else _said(outcome)
        yield f"{seq:>6}  {state:<10}  {row['kind']:<8} {on_one_line(row['original_name'])}: {said}"


def _said(outcome: AnyOutcome | None) -> str:
    if outcome is None:
        return DAMAGED
    if isinstance(outcome, Result) and not outcome.shown:
        return "recorded, not shown"
    if isinstance(outcome, Result):
        return NOT_SURE if outcome.abstained else outcome.label
    if isinstance(outcome, Void):
        return f"takes back {outcome.voids}"
    return " ".join(advice(reason) for reason in outcome.reasons)
