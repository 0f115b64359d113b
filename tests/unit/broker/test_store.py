"""One suite for every store: dictionaries, SQLite and a real PostgreSQL."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import URL, event

from broker.database import parse_url
from broker.errors import StoreLocked
from broker.ingest import Accepted, Rejected, Reported
from broker.reader import Reader, Totals
from broker.sql_store import SqlStore
from broker.store import Batch, DeviceChange, MemoryStore, NullStore, Store, StreamChange
from edge.contract import codec
from edge.contract.messages import AnyOutcome, Quarantined
from edge.contract.seqset import SeqSet
from tests.support import messages
from tests.support.messages import EPOCH, OTHER_EPOCH

STREAM = ("dev-a", EPOCH)


ENGINES = ["sqlite", "postgresql"]


def make_url(engine: str, request: pytest.FixtureRequest, folder: Path) -> URL:
    if engine == "sqlite":
        return parse_url(f"sqlite:///{folder}/centre.db")
    make: Callable[[], str] = request.getfixturevalue("postgres_database")
    return parse_url(make())


@pytest.fixture(params=["memory", *ENGINES])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "memory":
        yield MemoryStore()
        return
    with closing(SqlStore(make_url(request.param, request, tmp_path))) as real:
        yield real


@pytest.fixture(params=ENGINES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> URL:
    return make_url(request.param, request, tmp_path)


@pytest.fixture
def real(url: URL) -> Iterator[SqlStore]:
    with closing(SqlStore(url)) as store:
        yield store


def accepted(outcome: AnyOutcome, received_ms: int = 5_000) -> Accepted:
    return Accepted(outcome, codec.encode(outcome), received_ms, f"cxr/v1/{outcome.device}/result")


def odd(seq: int | None, payload: bytes = b"?", *, delivered: bool = True, reason: str = "invalid") -> Rejected:
    return Rejected(reason, "a detail", "cxr/v1/dev-a/result", payload, 6_000, "dev-a", EPOCH if seq else None, seq, delivered)


def batch(*outcomes: AnyOutcome, through: int = 0, rejected: tuple[Rejected, ...] = ()) -> Batch:
    return Batch(
        [accepted(one) for one in outcomes],
        list(rejected),
        {STREAM: StreamChange(through, max((one.seq for one in outcomes), default=0))},
        {"dev-a": DeviceChange(5_000)},
    )


def test_an_unknown_stream_is_empty(store: Store) -> None:
    assert store.delivered(STREAM) == SeqSet()
    assert store.payloads([("dev-a", EPOCH, 1)]) == {}
    assert store.quarantined(STREAM, 1, 9) == []


def test_what_is_committed_is_delivered(store: Store) -> None:
    store.commit(batch(*(messages.result(seq=seq) for seq in (1, 2, 3, 5, 8, 9)), through=3))
    assert store.delivered(STREAM) == SeqSet(3, [(5, 5), (8, 9)])
    assert store.delivered(("dev-a", OTHER_EPOCH)) == SeqSet()
    assert store.delivered(("dev-b", EPOCH)) == SeqSet()


def test_a_watermark_never_goes_back(store: Store) -> None:
    store.commit(batch(messages.result(seq=1), messages.result(seq=2), through=2))
    store.commit(batch(through=1))
    assert store.delivered(STREAM).through == 2


def test_quarantined_seqs_count_as_delivered_and_others_do_not(store: Store) -> None:
    store.commit(
        batch(messages.result(seq=1), through=1, rejected=(odd(3), odd(6, b"!", delivered=False), odd(None, b"-", delivered=False)))
    )
    assert store.delivered(STREAM) == SeqSet(1, [(3, 3)])


def test_quarantined_lists_reasons_in_order_from_a_seq_on(store: Store) -> None:
    store.commit(batch(rejected=(odd(5, b"5"), odd(2, b"2", reason="unknown_schema"), odd(9, b"9"), odd(1, b"1"))))
    assert store.quarantined(STREAM, 2, 2) == [Quarantined(2, "unknown_schema"), Quarantined(5, "invalid")]
    assert store.quarantined(("dev-b", EPOCH), 1, 9) == []


def test_a_seq_that_is_stored_well_is_not_called_quarantined(store: Store) -> None:
    store.commit(batch(rejected=(odd(1, b"1"), odd(2, b"2"))))
    store.commit(batch(messages.result(seq=1)))
    assert store.quarantined(STREAM, 1, 9) == [Quarantined(2, "invalid")]


def test_payloads_are_the_very_bytes(store: Store) -> None:
    one = Accepted(messages.result(seq=4), b'{ "spaces and \xff": 1 }', 1, "cxr/v1/dev-a/result")
    store.commit(Batch([one]))
    assert store.payloads([("dev-a", EPOCH, 4), ("dev-a", EPOCH, 5)]) == {("dev-a", EPOCH, 4): one.payload}


def test_many_keys_at_once(store: Store) -> None:
    store.commit(batch(*(messages.result(seq=seq) for seq in range(1, 1301)), through=1300))
    keys = [("dev-a", EPOCH, seq) for seq in range(1, 1401)]
    assert len(store.payloads(keys)) == 1300


def test_the_same_batch_again_changes_nothing(store: Store) -> None:
    first = batch(messages.result(seq=1), messages.result(seq=2), through=2, rejected=(odd(3),))
    store.commit(first)
    store.commit(first)
    assert store.delivered(STREAM) == SeqSet(3)


def test_the_null_store_forgets() -> None:
    store: Store = NullStore()
    store.commit(batch(messages.result(seq=1), through=1))
    assert store.delivered(STREAM) == SeqSet()
    assert store.payloads([("dev-a", EPOCH, 1)]) == {}
    assert store.quarantined(STREAM, 1, 1) == []


# What follows is about real databases only: counting, reopening, locking, reading beside the writer.


def test_the_same_again_never_counts_twice(url: URL, real: SqlStore) -> None:
    real.commit(batch(messages.result(seq=1), messages.refusal(seq=2), through=2, rejected=(odd(3),)))
    other = batch(messages.result(seq=1, label="normal"), messages.failure(seq=4), messages.void("dev-a", 5, 1), rejected=(odd(3),))
    real.commit(other)
    real.commit(batch(messages.result(seq=6, abstained=True)))
    reader = Reader(url)
    assert reader.totals() == Totals(results=2, unsure=1, refusals=1, failures=1, voids=1, quarantined=1)
    assert [row.seq for row in reader.outcomes()] == [6, 5, 4, 2, 1]
    assert reader.quarantine()[0].times == 2
    first = reader.outcome("dev-a", EPOCH, 1)
    assert first is not None
    assert first.outcome == messages.result(seq=1)
    assert first.voided_by == 5


def test_sqlite_does_not_read_the_whole_epoch_for_every_row_of_a_list(tmp_path: Path) -> None:
    """Counted as work and not as time: how often SQLite steps its machine, for a list and for one twice as long."""
    url = parse_url(f"sqlite:///{tmp_path}/centre.db")
    steps = []
    with closing(SqlStore(url)) as real:
        for first, last in ((1, 400), (401, 800)):
            real.commit(Batch([accepted(messages.result("dev-a", seq)) for seq in range(first, last + 1)]))
            reader, counted = Reader(url), itertools.count()

            def count(connection: sqlite3.Connection, record: object, counted: Iterator[int] = counted) -> None:
                connection.set_progress_handler(lambda: next(counted) < 0, 100)

            event.listen(reader._engine, "connect", count)
            assert len(reader.outcomes(limit=last)) == last
            steps.append(next(counted))
    assert steps[0] > 0
    assert steps[1] < 3 * steps[0]


def test_a_test_film_is_delivered_and_listed_and_counts_nowhere(url: URL, real: SqlStore) -> None:
    film = messages.result(seq=1, abstained=True, test=True)
    real.commit(batch(film, messages.result(seq=2), through=2))
    reader = Reader(url)
    assert reader.totals() == Totals(results=1, unsure=0, refusals=0, failures=0, voids=0, quarantined=0)
    assert [row.outcome for row in reader.outcomes()] == [messages.result(seq=2), film]
    assert real.delivered(STREAM) == SeqSet(2)


def test_lists_can_be_narrowed_and_paged(url: URL, real: SqlStore) -> None:
    outcomes = [messages.result("dev-a", 1), messages.result("dev-b", 1, abstained=True), messages.refusal("dev-b", 2)]
    real.commit(Batch([accepted(one) for one in [*outcomes, messages.failure("dev-a", 2), messages.void("dev-a", 3, 1)]]))
    reader = Reader(url)

    def seen(**asked) -> list[tuple[str, int]]:
        return [(row.device, row.seq) for row in reader.outcomes(**asked)]

    assert seen(device="dev-b") == [("dev-b", 2), ("dev-b", 1)]
    assert seen(kind="result") == [("dev-b", 1), ("dev-a", 1)]
    assert seen(kind="unsure") == [("dev-b", 1)]
    assert seen(kind="refusal") == [("dev-b", 2)]
    assert seen(kind="failure", device="dev-b") == []
    assert seen(kind="void") == [("dev-a", 3)]
    newest = reader.outcomes(limit=2)
    assert [row.id for row in newest] + [row.id for row in reader.outcomes(before=newest[-1].id)] == [
        row.id for row in reader.outcomes()
    ]


def test_devices_say_how_they_are_and_what_is_missing(url: URL, real: SqlStore) -> None:
    def report(state: str, at: int) -> Reported:
        status = messages.status(state=state)
        return Reported(status, codec.encode(status), at, retained=False)

    real.commit(Batch(devices={"dev-a": DeviceChange(7_000, report("online", 7_000)), "dev-b": DeviceChange(0)}))
    real.commit(Batch(devices={"dev-a": DeviceChange(6_000)}))
    real.commit(batch(messages.result(seq=1), messages.result(seq=4), through=1, rejected=(odd(6),)))
    real.commit(Batch(streams={STREAM: StreamChange(1, last_seq=9), ("dev-b", EPOCH): StreamChange(0, 0)}))
    first, second = Reader(url).devices()
    assert (first.device, first.seen_ms, first.status_ms, first.missing) == ("dev-a", 7_000, 7_000, 6)
    assert first.status is not None
    assert first.status.state == "online"
    assert (second.device, second.status, second.missing) == ("dev-b", None, 0)


def test_text_that_a_database_cannot_keep_is_kept_as_far_as_possible(url: URL, real: SqlStore) -> None:
    detail = "NUL \0, half a pair \ud800, and long " + "x" * 5000
    real.commit(Batch(rejected=[Rejected("bad_topic", detail, "topic\0\udfff", b"\0\xff", 1)]))
    [row] = Reader(url).quarantine()
    assert row.payload == b"\0\xff"
    assert row.topic == "topic\ufffd?"
    assert len(row.detail) == 1000


def test_everything_is_there_after_reopening(url: URL, real: SqlStore) -> None:
    real.commit(batch(messages.result(seq=1), messages.result(seq=3), through=1))
    real.close()
    again = SqlStore(url)
    assert again.delivered(STREAM) == SeqSet(1, [(3, 3)])
    again.close()


def test_a_second_writer_is_refused_and_a_reader_is_not(url: URL, real: SqlStore) -> None:
    with pytest.raises(StoreLocked, match="Another aggregator"):
        SqlStore(url)
    reader = Reader(url)
    before = reader.revision()
    real.commit(batch(messages.result(seq=1), through=1))
    assert reader.revision() == before + 1
    real.close()
    SqlStore(url).close()
    assert reader.totals().results == 1
