"""What the outbox holds, as lines for a person or a script on the device itself."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from edge.contract.codec import decode_outcome
from edge.contract.messages import Failure, Refusal, Result
from edge.contract.reasons import advice
from edge.outbox import Outbox


def listing_lines(outbox: Outbox, limit: int, *, everything: bool, as_json: bool) -> Iterator[str]:
    """Yield one line for each outcome, newest first, and for people a line of counts before them."""
    if not as_json:
        yield f"{outbox.device}: {outbox.last_seq()} outcomes, {outbox.waiting()} wait for the centre's receipt"
    for row in outbox.listing(limit, waiting_only=not everything):
        outcome = decode_outcome(row["payload"])
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
                    "seq": outcome.seq,
                    "epoch": outcome.epoch,
                    "kind": row["kind"],
                    "receipted": bool(row["receipted"]),
                    "quarantined": row["quarantined"],
                    "original_name": row["original_name"],
                    "place": row["place"],
                }
            ).decode()
            continue
        said = ""
        if isinstance(outcome, Result):
            said = "not sure" if outcome.abstained else outcome.label
        elif isinstance(outcome, Refusal | Failure):
            said = " ".join(advice(reason) for reason in outcome.reasons)
        yield f"{outcome.seq:>6}  {state:<10}  {row['kind']:<8} {row['original_name']}: {said}"
