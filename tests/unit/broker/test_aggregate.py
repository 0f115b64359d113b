"""The loop: acknowledged and receipted after the commit only, whatever the database does."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable

import pytest

from broker import aggregate
from broker.aggregate import Aggregator
from broker.errors import StoreRefused, StoreUnavailable
from broker.store import Batch, MemoryStore
from edge.contract import codec
from edge.contract.messages import Quarantined, Receipt
from edge.contract.topics import Channel
from tests.support import messages
from tests.support.links import FakeLink
from tests.support.messages import EPOCH, on_wire


class Moody(MemoryStore):
    """A store whose commits first go through `mood`, which may raise."""

    def __init__(self, mood: Callable[[Batch], None]) -> None:
        super().__init__()
        self.mood = mood
        self.commits = 0

    def commit(self, batch: Batch) -> None:
        self.commits += 1
        self.mood(batch)
        super().commit(batch)


@pytest.fixture
def link() -> FakeLink:
    return FakeLink()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aggregate, "_FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(aggregate, "_LONGEST_PAUSE_S", 0.002)


def handle(store: MemoryStore, link: FakeLink) -> None:
    Aggregator(store, link).handle(link.receive(500, 0, 0), threading.Event())


def test_commits_then_acknowledges_then_receipts(link: FakeLink) -> None:
    def nothing_said_yet(_batch: Batch) -> None:
        assert link.acknowledged == []
        assert link.receipts == []

    for seq in (1, 2, 4):
        link.put(*on_wire(messages.result(seq=seq)))
    handle(Moody(nothing_said_yet), link)
    assert link.acknowledged == [1, 2, 3]
    assert link.receipts == [Receipt(device="dev-a", epoch=EPOCH, through=2, plus=[(4, 4)])]


def test_poison_is_acknowledged_and_blocks_nobody(link: FakeLink, caplog: pytest.LogCaptureFixture) -> None:
    link.put("cxr/v1/dev-a/result", b"\xff")
    link.put(*on_wire(messages.result(seq=1)))
    link.put("elsewhere", b"")
    store = MemoryStore()
    handle(store, link)
    assert link.acknowledged == [1, 2, 3]
    assert len(store.outcomes) == 1
    assert {odd.reason for odd in store.rejected} == {"not_json", "bad_topic"}
    assert "not_json" in caplog.text


def test_a_database_that_is_away_is_waited_for(link: FakeLink, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    failures = iter([True, True, True, False])

    def away(_batch: Batch) -> None:
        assert link.acknowledged == []
        assert link.receipts == []
        if next(failures):
            raise StoreUnavailable("disk full")

    link.put(*on_wire(messages.result(seq=1)))
    store = Moody(away)
    handle(store, link)
    assert store.commits == 4
    assert len(store.outcomes) == 1
    assert link.acknowledged == [1]
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO"]  # said once, and that it is over
    assert "disk full" in caplog.text


def test_a_commit_whose_answer_was_lost_counts_once(link: FakeLink) -> None:
    store = Moody(lambda _batch: None)

    def committed_but_said_nothing(batch: Batch) -> None:
        if store.commits == 1:
            MemoryStore.commit(store, batch)
            raise StoreUnavailable("connection lost")

    store.mood = committed_but_said_nothing
    link.put(*on_wire(messages.result(seq=1)))
    handle(store, link)
    assert len(store.outcomes) == 1
    assert store.rejected == []
    assert link.receipts == [Receipt(device="dev-a", epoch=EPOCH, through=1)]


def test_stopping_while_the_database_is_away_acknowledges_nothing(link: FakeLink) -> None:
    stop = threading.Event()

    def away(_batch: Batch) -> None:
        stop.set()
        raise StoreUnavailable("gone")

    link.put(*on_wire(messages.result(seq=1)))
    Aggregator(Moody(away), link).run(stop)
    assert link.acknowledged == []
    assert link.receipts == []


def test_an_outcome_that_the_database_never_takes_is_quarantined_alone(link: FakeLink) -> None:
    def refuses_two(batch: Batch) -> None:
        if any(kept.outcome.seq == 2 for kept in batch.outcomes):
            raise StoreRefused("value too long")

    for seq in (1, 2, 3):
        link.put(*on_wire(messages.result(seq=seq)))
    store = Moody(refuses_two)
    handle(store, link)
    assert sorted(seq for _, _, seq in store.outcomes) == [1, 3]
    assert link.acknowledged == [1, 2, 3]
    assert link.receipts[-1] == Receipt(device="dev-a", epoch=EPOCH, through=3)
    assert [receipt.quarantined for receipt in link.receipts if receipt.quarantined] == [[Quarantined(2, "invalid")]]


def test_a_status_that_the_database_never_takes_is_dropped(link: FakeLink, caplog: pytest.LogCaptureFixture) -> None:
    def refuses_news(batch: Batch) -> None:
        if any(change.report for change in batch.devices.values()):
            raise StoreRefused("no")

    link.put(*on_wire(messages.status(), Channel.STATUS))
    link.put(*on_wire(messages.result(seq=1)))
    store = Moody(refuses_news)
    handle(store, link)
    assert len(store.outcomes) == 1
    assert link.acknowledged == [1, 2]
    assert "Dropped" in caplog.text


def test_nobodys_text_breaks_the_log(link: FakeLink, caplog: pytest.LogCaptureFixture) -> None:
    payload = json.loads(codec.encode(messages.result())) | {"device": "x\nERROR forged"}
    link.put("cxr/v1/dev-a/result", json.dumps(payload).encode())
    handle(MemoryStore(), link)
    assert "\nERROR forged" not in caplog.records[0].getMessage()
