"""The store on SQLite or PostgreSQL: one connection, one transaction for each batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import URL, Connection, case, func, select, tuple_
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError

from broker import schema
from broker.database import first_line, lock_file, lock_session, migrate, writer_engine
from broker.errors import StoreRefused, StoreUnavailable
from broker.ingest import Accepted, Rejected
from broker.rows import counter, insert_outcomes, quarantine_row
from broker.store import Batch, DeviceChange, OutcomeKey, StreamChange, StreamKey
from edge.contract.messages import Quarantined, Result
from edge.contract.seqset import SeqSet

_COUNTERS = ("results", "abstained", "refusals", "failures", "voids")
_KEYS_EACH = 500


class SqlStore:
    """A `Store`. Opening it takes the database's one-writer lock and creates or migrates the tables."""

    def __init__(self, url: URL) -> None:
        """Open the database at `url`.

        Raises:
            StoreLocked: if another aggregator writes to it.
            StoreMissing: if it cannot be used.
            StoreUnavailable: if it does not answer now.
        """
        self._lock = lock_file(url)
        self._engine = writer_engine(url)
        self._insert = postgresql.insert if url.drivername.startswith("postgresql") else sqlite.insert
        self._connection: Connection | None = None
        try:
            with self._errors():
                migrate(self._open())
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give the connection and the lock back; calling it again does nothing."""
        self._drop()
        self._engine.dispose()
        if self._lock is not None:
            self._lock.close()

    def delivered(self, stream: StreamKey) -> SeqSet:
        """See `Store.delivered`. Reads only what lies beyond the stored watermark."""
        with self._transaction() as connection:
            table = schema.streams
            row = connection.execute(select(table.c.through).where(table.c.device == stream[0], table.c.epoch == stream[1])).first()
            seqs = SeqSet(int(row[0]) if row else 0)
            for table, also in ((schema.outcomes, ()), (schema.quarantine, (schema.quarantine.c.delivered,))):
                # Neighbours share (seq - position), so that the database returns ranges and not seqs.
                place = func.row_number().over(order_by=table.c.seq)
                wanted = (table.c.device == stream[0], table.c.epoch == stream[1], table.c.seq > seqs.through, *also)
                island = select(table.c.seq, (table.c.seq - place).label("run")).where(*wanted).distinct().subquery()
                for first, last in connection.execute(
                    select(func.min(island.c.seq), func.max(island.c.seq)).group_by(island.c.run)
                ):
                    seqs.add_range(int(first), int(last))
        return seqs

    def payloads(self, keys: Collection[OutcomeKey]) -> Mapping[OutcomeKey, bytes]:
        """See `Store.payloads`."""
        with self._transaction() as connection:
            return self._payloads(connection, keys)

    def quarantined(self, stream: StreamKey, first: int, limit: int) -> list[Quarantined]:
        """See `Store.quarantined`."""
        odd, kept = schema.quarantine.c, schema.outcomes.c
        stored = select(kept.id).where(kept.device == odd.device, kept.epoch == odd.epoch, kept.seq == odd.seq).exists()
        query = (
            select(odd.seq, func.min(odd.reason))
            .where(odd.device == stream[0], odd.epoch == stream[1], odd.seq >= first, odd.delivered, ~stored)
            .group_by(odd.seq)
            .order_by(odd.seq)
            .limit(limit)
        )
        with self._transaction() as connection:
            return [Quarantined(int(seq), reason) for seq, reason in connection.execute(query)]

    def commit(self, batch: Batch) -> None:
        """See `Store.commit`."""
        try:
            self._write(batch, batch.outcomes)
        except IntegrityError:
            # Somebody stored some of these before, although the ledger did not know: write only the rest, so that the counts hold.
            keys = {(kept.outcome.device, kept.outcome.epoch, kept.outcome.seq): kept for kept in batch.outcomes}
            known = self.payloads(keys)
            try:
                self._write(batch, [kept for key, kept in keys.items() if key not in known])
            except IntegrityError as error:
                raise StoreRefused(first_line(error)) from None

    def _write(self, batch: Batch, outcomes: Sequence[Accepted]) -> None:
        with self._transaction() as connection:
            insert_outcomes(connection, outcomes)
            if batch.rejected:
                self._upsert_quarantine(connection, batch.rejected)
            if batch.streams:
                self._upsert_streams(connection, batch.streams, outcomes)
            if batch.devices:
                self._upsert_devices(connection, batch.devices)
            connection.execute(schema.revision.update().values(number=schema.revision.c.number + 1))

    def _payloads(self, connection: Connection, keys: Collection[OutcomeKey]) -> dict[OutcomeKey, bytes]:
        c = schema.outcomes.c
        wanted = list(keys)
        found: dict[OutcomeKey, bytes] = {}
        for start in range(0, len(wanted), _KEYS_EACH):
            some = tuple_(c.device, c.epoch, c.seq).in_(wanted[start : start + _KEYS_EACH])
            for row in connection.execute(select(c.device, c.epoch, c.seq, c.payload).where(some)):
                found[(row[0], row[1], int(row[2]))] = bytes(row[3])
        return found

    def _upsert_quarantine(self, connection: Connection, rejected: Sequence[Rejected]) -> None:
        insert = self._insert(schema.quarantine)
        statement = insert.on_conflict_do_update(
            index_elements=["digest"], set_={"times": schema.quarantine.c.times + 1, "received_ms": insert.excluded.received_ms}
        )
        connection.execute(statement, [quarantine_row(odd) for odd in rejected])

    def _upsert_streams(
        self, connection: Connection, streams: Mapping[StreamKey, StreamChange], outcomes: Sequence[Accepted]
    ) -> None:
        counts: Counter[tuple[StreamKey, str]] = Counter()
        for kept in outcomes:
            if kept.outcome.test:
                continue  # stored and shown, and no part of what people read from the counts
            stream = (kept.outcome.device, kept.outcome.epoch)
            counts[stream, counter(kept)] += 1
            if isinstance(kept.outcome, Result) and kept.outcome.abstained:
                counts[stream, "abstained"] += 1
        rows = [
            {"device": key[0], "epoch": key[1], "through": change.through, "last_seq": change.last_seq, "closed": change.closed}
            | {name: counts[key, name] for name in _COUNTERS}
            for key, change in streams.items()
        ]
        insert, old = self._insert(schema.streams), schema.streams.c
        new = insert.excluded
        changes: dict[str, Any] = {name: old[name] + new[name] for name in _COUNTERS}
        changes |= {name: case((new[name] > old[name], new[name]), else_=old[name]) for name in ("through", "last_seq")}
        changes["closed"] = case((new.closed, True), else_=old.closed)
        connection.execute(insert.on_conflict_do_update(index_elements=["device", "epoch"], set_=changes), rows)

    def _upsert_devices(self, connection: Connection, devices: Mapping[str, DeviceChange]) -> None:
        rows = []
        for name, change in devices.items():
            row: dict[str, Any] = {"device": name, "seen_ms": change.seen_ms, "state": None, "status": None, "status_ms": None}
            if change.report is not None:
                row |= {
                    "state": change.report.status.state,
                    "status": change.report.payload,
                    "status_ms": change.report.received_ms,
                }
            rows.append(row)
        insert, old = self._insert(schema.devices), schema.devices.c
        new = insert.excluded
        changes: dict[str, Any] = {name: func.coalesce(new[name], old[name]) for name in ("state", "status", "status_ms")}
        changes["seen_ms"] = case((new.seen_ms > old.seen_ms, new.seen_ms), else_=old.seen_ms)
        connection.execute(insert.on_conflict_do_update(index_elements=["device"], set_=changes), rows)

    def _open(self) -> Connection:
        if self._connection is None:
            self._connection = self._engine.connect()
            lock_session(self._connection)
        return self._connection

    def _drop(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            try:
                connection.close()
            except DBAPIError:
                connection.invalidate()

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with self._errors():
            connection = self._open()
            with connection.begin():
                yield connection

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except IntegrityError:
            raise
        except (DataError, OverflowError, UnicodeEncodeError) as error:
            raise StoreRefused(first_line(error)) from None
        except DBAPIError as error:
            self._drop()  # the next call opens a new connection, and takes PostgreSQL's lock with it
            raise StoreUnavailable(first_line(error)) from None
