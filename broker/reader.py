"""Reading what the aggregator stored: for the page and the command line. Cannot write (`mode=ro`, read-only transactions)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import URL, Connection, Row, Select, and_, func, select
from sqlalchemy.exc import DBAPIError, OperationalError, ProgrammingError

from broker import schema
from broker.database import first_line, reader_engine
from broker.errors import StoreMissing, StoreUnavailable
from edge.contract import codec
from edge.contract.errors import ContractError
from edge.contract.messages import AnyOutcome, Status

Kind = Literal["result", "unsure", "refusal", "failure", "void"]
"""What a list can be narrowed to; `unsure` are the results that abstain."""

_o, _s, _d, _q = schema.outcomes.c, schema.streams.c, schema.devices.c, schema.quarantine.c


@dataclass(frozen=True, slots=True)
class StoredOutcome:
    """One outcome. `outcome` is None if this software cannot read the payload; `voided_by` is the seq that took it back."""

    id: int
    device: str
    epoch: str
    seq: int
    kind: str
    received_ms: int
    payload: bytes
    outcome: AnyOutcome | None
    voided_by: int | None


@dataclass(frozen=True, slots=True)
class StoredDevice:
    """One device. `missing` counts seqs that it has spoken of and that have not arrived."""

    device: str
    seen_ms: int
    status_ms: int | None
    status: Status | None
    missing: int


@dataclass(frozen=True, slots=True)
class StoredOdd:
    """One quarantined message, which came `times` times, the last time at `received_ms`."""

    id: int
    times: int
    reason: str
    detail: str
    topic: str
    payload: bytes
    received_ms: int
    device: str | None
    epoch: str | None
    seq: int | None


@dataclass(frozen=True, slots=True)
class Totals:
    """How much there is of everything. `results` includes `unsure`."""

    results: int
    unsure: int
    refusals: int
    failures: int
    voids: int
    quarantined: int


class Reader:
    """Queries, each in a short transaction of its own.

    Each method raises StoreMissing if the database is not there, and StoreUnavailable if it does not answer.
    """

    def __init__(self, url: URL) -> None:
        self._url = url
        self._engine = reader_engine(url)

    def revision(self) -> int:
        """Return a number that grows with every commit of the aggregator."""
        with self._reading() as connection:
            return int(connection.execute(select(schema.revision.c.number)).scalar_one())

    def outcomes(
        self, *, device: str | None = None, kind: Kind | None = None, before: int | None = None, limit: int = 50
    ) -> list[StoredOutcome]:
        """Return outcomes, the last to arrive first; `before` is the `id` from which to go on to older ones."""
        query = _outcomes().order_by(_o.id.desc()).limit(limit)
        if device is not None:
            query = query.where(_o.device == device)
        if before is not None:
            query = query.where(_o.id < before)
        if kind == "unsure":
            query = query.where(_o.abstained)
        elif kind == "result":
            query = query.where(_o.kind == kind)
        elif kind is not None:
            query = query.where(_o.kind == kind, _o.kind != "result")  # the second half is what the partial index asks for
        with self._reading() as connection:
            return [_outcome(row) for row in connection.execute(query)]

    def outcome(self, device: str, epoch: str, seq: int) -> StoredOutcome | None:
        """Return one outcome, or None."""
        with self._reading() as connection:
            row = connection.execute(_outcomes().where(_o.device == device, _o.epoch == epoch, _o.seq == seq)).first()
        return None if row is None else _outcome(row)

    def devices(self) -> list[StoredDevice]:
        """Return every device that was ever heard of, by name."""
        with self._reading() as connection:
            missing: dict[str, int] = {}
            for row in connection.execute(_missing()):
                missing[row[0]] = missing.get(row[0], 0) + max(0, int(row[1]))
            rows = connection.execute(select(_d.device, _d.seen_ms, _d.status_ms, _d.status).order_by(_d.device)).all()
        return [StoredDevice(row[0], int(row[1]), row[2], _status(row[3]), missing.get(row[0], 0)) for row in rows]

    def quarantine(self, *, before: int | None = None, limit: int = 50) -> list[StoredOdd]:
        """Return quarantined messages, the last new one first."""
        query = select(schema.quarantine).order_by(_q.id.desc()).limit(limit)
        if before is not None:
            query = query.where(_q.id < before)
        with self._reading() as connection:
            return [_odd(row) for row in connection.execute(query)]

    def totals(self) -> Totals:
        """Return the counts; they are kept up to date with every commit, so this reads no outcomes."""
        counted = (_s.results, _s.abstained, _s.refusals, _s.failures, _s.voids)
        with self._reading() as connection:
            row = connection.execute(select(*(func.coalesce(func.sum(column), 0) for column in counted))).one()
            odd = connection.execute(select(func.count()).select_from(schema.quarantine)).scalar_one()
        results, unsure, refusals, failures, voids = (int(number) for number in row)
        return Totals(results, unsure, refusals, failures, voids, int(odd))

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        if self._url.drivername == "sqlite" and not Path(str(self._url.database)).is_file():
            raise StoreMissing(
                f"There is no database at {self._url.database}; start `cxr-broker aggregate` with the same --db first."
            )
        try:
            with self._engine.connect() as connection:
                yield connection
        except (OperationalError, ProgrammingError) as error:
            if "no such table" in str(error.orig) or "UndefinedTable" in type(error.orig).__name__:
                raise StoreMissing(
                    "The database has no tables yet; start `cxr-broker aggregate` with the same --db first."
                ) from None
            raise StoreUnavailable(f"The database cannot be read: {first_line(error)}.") from None
        except DBAPIError as error:
            raise StoreUnavailable(f"The database cannot be read: {first_line(error)}.") from None


def _outcomes() -> Select[Any]:
    void = schema.outcomes.alias("void").c
    # Of a bare column SQLite would look for the least along the key, through the whole epoch; so it uses the index of voids.
    taken_back = select(func.min(void.seq + 0)).where(void.device == _o.device, void.epoch == _o.epoch, void.voids == _o.seq)
    return select(
        _o.id, _o.device, _o.epoch, _o.seq, _o.kind, _o.received_ms, _o.payload, taken_back.scalar_subquery().label("voided_by")
    )


def _missing() -> Select[Any]:
    """(device, how many) for each stream whose watermark is behind what the device has spoken of."""
    beyond = and_(_o.device == _s.device, _o.epoch == _s.epoch, _o.seq > _s.through)
    odd = and_(_q.device == _s.device, _q.epoch == _s.epoch, _q.seq > _s.through, _q.delivered)
    have = select(func.count()).where(beyond).correlate(schema.streams).scalar_subquery()
    also = select(func.count(_q.seq.distinct())).where(odd).correlate(schema.streams).scalar_subquery()
    return select(_s.device, _s.last_seq - _s.through - have - also).where(_s.last_seq > _s.through)


def _outcome(row: Row[Any]) -> StoredOutcome:
    payload = bytes(row.payload)
    try:
        outcome = codec.decode_outcome(payload)
    except ContractError:
        outcome = None
    voided_by = None if row.voided_by is None else int(row.voided_by)
    return StoredOutcome(row.id, row.device, row.epoch, row.seq, row.kind, row.received_ms, payload, outcome, voided_by)


def _odd(row: Row[Any]) -> StoredOdd:
    return StoredOdd(
        id=row.id,
        times=row.times,
        reason=row.reason,
        detail=row.detail,
        topic=row.topic,
        payload=bytes(row.payload),
        received_ms=row.received_ms,
        device=row.device,
        epoch=row.epoch,
        seq=row.seq,
    )


def _status(payload: bytes | None) -> Status | None:
    try:
        return None if payload is None else codec.decode_status(bytes(payload))
    except ContractError:
        return None
