"""The sender's decisions, against a broker and a centre that lose, delay and repeat as they like. No network, no clock."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from edge.contract.seqset import SeqSet
from edge.delivery.window import MAX_TIMEOUT_S, Delivery
from edge.outbox.reader import Row


class Waiting:
    """An outbox in memory."""

    def __init__(self, count):
        self.open = dict.fromkeys(range(1, count + 1), b"x")

    def unreceipted(self, after, limit):
        return [Row(seq, b"x") for seq in sorted(self.open) if seq > after][:limit]

    def payload(self, seq):
        return self.open.get(seq)


def publish_all(delivery, now, mids):
    sent = []
    while (row := delivery.take(now)) is not None:
        mid = next(mids)
        delivery.published(mid, row.number, now)
        sent.append((mid, row.number))
    return sent


def test_the_window_is_never_exceeded_and_slides():
    delivery, mids = Delivery(Waiting(100), window=20, timeout_s=30), iter(range(10**6))
    first = publish_all(delivery, 0.0, mids)
    assert [seq for _, seq in first] == list(range(1, 21))
    delivery.acknowledged(first[0][0], 0.0)
    assert [seq for _, seq in publish_all(delivery, 0.0, mids)] == [21]
    assert publish_all(delivery, 0.0, mids) == []


def test_what_has_no_receipt_is_sent_again_after_a_timeout_that_doubles_to_fifteen_minutes():
    delivery, mids = Delivery(Waiting(1), window=20, timeout_s=30), iter(range(10**6))
    now, gaps = 0.0, []
    for _ in range(9):
        ((mid, _),) = publish_all(delivery, now, mids)
        delivery.acknowledged(mid, now)
        assert publish_all(delivery, now + 0.001, mids) == []
        gaps.append(delivery.next_due() - now)
        now = delivery.next_due()
    assert gaps == [30, 60, 120, 240, 480, 900, 900, 900, 900]
    assert max(gaps) == MAX_TIMEOUT_S


def test_what_never_gets_a_receipt_is_sent_for_ever():
    delivery, mids, now = Delivery(Waiting(1), window=20, timeout_s=30.0), iter(range(10**6)), 0.0
    for _ in range(1500):
        ((mid, _),) = publish_all(delivery, now, mids)
        delivery.acknowledged(mid, now)
        now = delivery.next_due()
    assert now == 30 + 60 + 120 + 240 + 480 + 1495 * MAX_TIMEOUT_S


def test_an_acknowledgement_is_no_receipt_and_a_receipt_ends_it():
    source = Waiting(3)
    delivery, mids = Delivery(source, window=20, timeout_s=30), iter(range(10**6))
    for mid, _ in publish_all(delivery, 0.0, mids):
        delivery.acknowledged(mid, 0.0)
    assert delivery.unreceipted == 3
    delivery.receipted(SeqSet(1, [(3, 3)]))
    del source.open[1], source.open[3]
    assert [seq for _, seq in publish_all(delivery, 31.0, mids)] == [2]


def test_after_a_lost_connection_what_was_in_flight_goes_out_at_once():
    delivery, mids = Delivery(Waiting(5), window=20, timeout_s=30), iter(range(10**6))
    publish_all(delivery, 0.0, mids)
    delivery.reconnected(1.0)
    assert sorted(seq for _, seq in publish_all(delivery, 1.0, mids)) == [1, 2, 3, 4, 5]


def test_it_knows_how_long_the_broker_has_acknowledged_nothing():
    source = Waiting(5)
    delivery, mids = Delivery(source, window=20, timeout_s=30), iter(range(10**6))
    assert delivery.unanswered_for(50.0) == 0.0
    (first, *others) = publish_all(delivery, 100.0, mids)
    assert delivery.unanswered_for(130.0) == 30.0
    source.open[6] = b"x"
    delivery.wake()
    others += publish_all(delivery, 130.5, mids)
    assert len(others) == 5
    delivery.acknowledged(99_999, 131.0)
    assert delivery.unanswered_for(131.0) == 31.0, "that was none of ours"
    delivery.acknowledged(first[0], 140.0)
    assert delivery.unanswered_for(145.0) == 5.0
    for mid, _ in others:
        delivery.acknowledged(mid, 146.0)
    assert delivery.unanswered_for(1000.0) == 0.0, "nothing is in flight"
    publish_all(delivery, 2000.0, mids)
    assert delivery.unanswered_for(2010.0) == 10.0
    delivery.reconnected(2011.0)
    assert delivery.unanswered_for(2012.0) == 0.0


def test_after_a_rewind_all_that_waits_goes_out_again():
    source = Waiting(3)
    delivery, mids = Delivery(source, window=20, timeout_s=30), iter(range(10**6))
    for mid, _ in publish_all(delivery, 0.0, mids):
        delivery.acknowledged(mid, 0.0)
    delivery.receipted(SeqSet(3))
    assert publish_all(delivery, 1.0, mids) == []
    delivery.start_over()
    assert [seq for _, seq in publish_all(delivery, 1.0, mids)] == [1, 2, 3]


@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.sampled_from([20, 33, 100]))
@settings(max_examples=80, deadline=None)
def test_everything_arrives_whatever_is_lost(seed, count, window):
    """Messages, acknowledgements and receipts vanish, connections break; in the end the centre holds all, the outbox nothing."""
    rng = random.Random(seed)
    source, centre = Waiting(count), SeqSet()
    delivery, mids, now = Delivery(source, window=window, timeout_s=30), iter(range(10**6)), 0.0
    for round_ in range(2000):
        calm = round_ > 40
        for mid, seq in publish_all(delivery, now, mids):
            if calm or rng.random() < 0.6:
                centre.add(seq)
            if calm or rng.random() < 0.7:
                delivery.acknowledged(mid, now)
        if calm or rng.random() < 0.4:
            delivery.receipted(centre)
            source.open = {seq: b"x" for seq in source.open if seq not in centre}
        if rng.random() < 0.1 or calm:
            delivery.reconnected(now)
        now += rng.choice([0.1, 40.0, 900.0])
        if not source.open:
            break
    assert not source.open
    assert centre.through == count
    assert delivery.take(now) is None


def test_it_holds_a_bounded_number_without_receipt(monkeypatch):
    monkeypatch.setattr("edge.delivery.window.HORIZON", 50)
    delivery, mids = Delivery(Waiting(500), window=20, timeout_s=30), iter(range(10**6))
    sent = 0
    while batch := publish_all(delivery, 0.0, mids):
        sent += len(batch)
        for mid, _ in batch:
            delivery.acknowledged(mid, 0.0)
    assert sent == 50


def test_unknown_acknowledgements_are_none_of_ours():
    delivery = Delivery(Waiting(1), window=20, timeout_s=30)
    assert delivery.acknowledged(99, 0.0) is None
