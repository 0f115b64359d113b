"""What `cxr-broker results` and `cxr-broker quarantine` print, one line each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from typing import Any, Protocol, TypeVar

import msgspec

from broker.reader import Reader, StoredOdd, StoredOutcome
from edge.contract.messages import Result

_PAGE = 500


class _HasId(Protocol):
    @property
    def id(self) -> int: ...


_Row = TypeVar("_Row", bound=_HasId)


def utc(milliseconds: int) -> str:
    """Return milliseconds since 1970 as `2026-01-31T23:59:59.123Z`."""
    return datetime.fromtimestamp(milliseconds / 1000, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def result_lines(reader: Reader, limit: int, *, as_json: bool) -> Iterator[str]:
    """Yield outcomes, the last to arrive first; all of them if `limit` is 0. Raises as `Reader`."""
    for row in _all(lambda before, count: reader.outcomes(before=before, limit=count), limit):
        values = _outcome(row)
        yield _json(values) if as_json else _plain(values)


def quarantine_lines(reader: Reader, limit: int, *, as_json: bool) -> Iterator[str]:
    """Yield quarantined messages, the newest first; all of them if `limit` is 0. Raises as `Reader`."""
    for row in _all(lambda before, count: reader.quarantine(before=before, limit=count), limit):
        values = _odd(row)
        yield _json(values) if as_json else _plain({name: value for name, value in values.items() if name != "payload"})


def _all(page: Callable[[int | None, int], list[_Row]], limit: int) -> Iterator[_Row]:
    before, left = None, limit or None
    while left is None or left > 0:
        count = _PAGE if left is None else min(_PAGE, left)
        rows = page(before, count)
        yield from rows
        if len(rows) < count:
            return
        before, left = rows[-1].id, None if left is None else left - count


def _outcome(row: StoredOutcome) -> dict[str, Any]:
    outcome = row.outcome
    result = outcome if isinstance(outcome, Result) else None
    return {
        "device": row.device,
        "epoch": row.epoch,
        "seq": row.seq,
        "kind": row.kind,
        "label": result.label if result else None,
        "abstained": result.abstained if result else None,
        "probabilities": result.probabilities if result else None,
        "reasons": list(getattr(outcome, "reasons", [])),
        "voids": getattr(outcome, "voids", None),
        "voided_by": row.voided_by,
        "received_at": utc(row.received_ms),
    }


def _odd(row: StoredOdd) -> dict[str, Any]:
    return {
        "id": row.id,
        "reason": row.reason,
        "times": row.times,
        "device": row.device,
        "epoch": row.epoch,
        "seq": row.seq,
        "topic": row.topic,
        "detail": row.detail,
        "received_at": utc(row.received_ms),
        "payload": row.payload.decode("utf-8", "replace"),
    }


def _json(values: dict[str, Any]) -> str:
    return msgspec.json.encode(values).decode()


def _plain(values: dict[str, Any]) -> str:
    """For a terminal: `name=value`, empty ones left out, and no control characters, as devices choose these texts."""
    shown = (f"{name}={value}" for name, value in values.items() if value not in (None, [], ""))
    return "".join(c if c.isprintable() else "\ufffd" for c in "  ".join(shown))
