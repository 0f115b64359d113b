"""From messages to the rows of the database."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection

from broker.ingest import Accepted, Rejected
from edge.contract.messages import Result, Void

_COLUMNS = (
    "device", "epoch", "seq", "kind", "facility", "label", "abstained", "voids", "exam_date",
    "recorded_at", "received_ms", "payload",
)  # fmt: skip
_LARGEST_INSERT = 256


def insert_outcomes(connection: Connection, outcomes: Sequence[Accepted]) -> None:
    """Insert many rows by few statements: one call into the driver for up to 256 rows.

    Row by row the driver gives up Python's lock for each of them and gets it back late, as the network thread is busy.
    """
    start = 0
    mark = "?" if connection.dialect.name == "sqlite" else "%s"
    while start < len(outcomes):
        # Powers of two, so that there are few distinct statements and the driver's statement cache knows them all.
        count = min(_LARGEST_INSERT, 1 << ((len(outcomes) - start).bit_length() - 1))
        values: list[Any] = []
        for accepted in outcomes[start : start + count]:
            values += _row(accepted)
        connection.exec_driver_sql(_insert_statement(count, mark), tuple(values))
        start += count


@lru_cache(maxsize=32)
def _insert_statement(rows: int, mark: str) -> str:
    row = "(" + ",".join([mark] * len(_COLUMNS)) + ")"
    # Only the names above and placeholders go into the text.
    return f"INSERT INTO outcomes ({','.join(_COLUMNS)}) VALUES {','.join([row] * rows)}"  # noqa: S608


def _row(accepted: Accepted) -> tuple[Any, ...]:
    outcome = accepted.outcome
    label, abstained, voids = None, None, None
    if isinstance(outcome, Result):
        label, abstained = outcome.label, outcome.abstained
    elif isinstance(outcome, Void):
        voids = outcome.voids
    return (
        outcome.device, outcome.epoch, outcome.seq, _kind(accepted), outcome.facility, label, abstained, voids, outcome.exam_date,
        outcome.recorded_at, accepted.received_ms, accepted.payload,
    )  # fmt: skip


def _kind(accepted: Accepted) -> str:
    return str(accepted.outcome.__struct_config__.tag)


def counter(accepted: Accepted) -> str:
    """Return the column of `streams` that counts this kind of outcome."""
    return _kind(accepted) + "s"


def quarantine_row(odd: Rejected) -> dict[str, Any]:
    """Return the row of a quarantined message."""
    return {
        "digest": hashlib.sha256(odd.topic.encode("utf-8", "replace") + b"\0" + odd.payload).hexdigest(),
        "times": 1,
        "reason": odd.reason,
        "detail": _text(odd.detail),
        "topic": _text(odd.topic),
        "payload": odd.payload,
        "received_ms": odd.received_ms,
        "device": odd.device,
        "epoch": odd.epoch,
        "seq": odd.seq,
        "delivered": odd.delivered,
    }


def _text(value: str) -> str:
    """Text of any origin, as both databases can keep it: no NUL, no lone surrogates, not endless."""
    return value.replace("\0", "\ufffd").encode("utf-8", "replace").decode()[:1000]
