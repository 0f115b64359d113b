"""Nothing counts twice, and a receipt says what is committed."""

from __future__ import annotations

import json
import random
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker import ledger
from broker.ingest import Decision, Inbound, classify
from broker.ledger import Ledger
from broker.store import MemoryStore
from edge.contract import codec
from edge.contract.messages import MAX_BYTES, AnyMessage, ClosedEpoch, Quarantined, Receipt
from edge.contract.seqset import SeqSet
from edge.contract.topics import Channel
from edge.delivery.receipts import Receipts
from edge.outbox.writer import Entry, Outbox
from tests.support import messages
from tests.support.messages import EPOCH, OTHER_EPOCH, on_wire


class Centre:
    """A ledger over dictionaries."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.ledger = Ledger(self.store)

    def take(self, *decisions: Decision) -> list[Receipt]:
        plan = self.ledger.plan(decisions)
        self.store.commit(plan.batch)
        return list(self.ledger.receipts(plan))

    def restart(self) -> None:
        self.ledger = Ledger(self.store)


def got(message: AnyMessage, channel: Channel = Channel.RESULT) -> Decision:
    topic, payload = on_wire(message, channel)
    return classify(Inbound(topic, payload, 1_000))


def broken(seq: int, device: str = "dev-a", **changes: object) -> Decision:
    values = json.loads(codec.encode(messages.result(device, seq))) | {"label": 7} | changes
    return classify(Inbound(f"cxr/v1/{device}/result", json.dumps(values).encode(), 1_000))


@pytest.fixture
def centre() -> Centre:
    return Centre()


def test_one_receipt_for_each_stream(centre: Centre) -> None:
    seqs = [("dev-a", EPOCH, 1), ("dev-a", EPOCH, 2), ("dev-a", OTHER_EPOCH, 1), ("dev-b", EPOCH, 2)]
    receipts = centre.take(*(got(messages.result(device, seq, epoch)) for device, epoch, seq in seqs))
    assert receipts == [
        Receipt(device="dev-a", epoch=EPOCH, through=2),
        Receipt(device="dev-a", epoch=OTHER_EPOCH, through=1),
        Receipt(device="dev-b", epoch=EPOCH, through=0, plus=[(2, 2)]),
    ]


@pytest.mark.parametrize("restart", [False, True])
def test_repeats_are_receipted_and_not_stored(centre: Centre, restart: bool) -> None:
    centre.take(got(messages.result(seq=1)), got(messages.result(seq=2)))
    if restart:
        centre.restart()
    plan = centre.ledger.plan([got(messages.result(seq=1)), got(messages.result(seq=2))])
    assert plan.batch.outcomes == []
    assert plan.batch.rejected == []
    assert list(centre.ledger.receipts(plan)) == [Receipt(device="dev-a", epoch=EPOCH, through=2)]


@pytest.mark.parametrize("together", [False, True])
def test_the_first_of_two_different_ones_counts(centre: Centre, together: bool) -> None:
    first, second = got(messages.result(seq=1, label="covid")), got(messages.result(seq=1, label="normal"))
    receipts = centre.take(first, second) if together else centre.take(first) + centre.take(second)
    assert all(receipt == Receipt(device="dev-a", epoch=EPOCH, through=1) for receipt in receipts)
    assert centre.store.outcomes["dev-a", EPOCH, 1] is first
    assert [(odd.reason, odd.seq, odd.delivered) for odd in centre.store.rejected] == [("conflict", 1, False)]


def test_another_spelling_of_the_same_is_no_contradiction(centre: Centre) -> None:
    values = json.loads(codec.encode(messages.result(seq=1)))
    spelled = json.dumps(dict(reversed(values.items())) | {"from_a_newer_device": 1}, indent=1).encode()
    centre.take(got(messages.result(seq=1)), classify(Inbound("cxr/v1/dev-a/result", spelled, 1)))
    assert centre.store.rejected == []


def test_what_is_broken_is_receipted_as_quarantined_and_holds_nothing_up(centre: Centre) -> None:
    [receipt] = centre.take(got(messages.result(seq=1)), broken(2), got(messages.result(seq=3)))
    assert receipt == Receipt(device="dev-a", epoch=EPOCH, through=3, quarantined=[Quarantined(2, "invalid")])
    [again] = centre.take(broken(2))
    assert again == receipt


def test_a_good_copy_after_a_broken_one_is_taken_in(centre: Centre) -> None:
    centre.take(broken(1))
    centre.restart()
    [receipt] = centre.take(got(messages.result(seq=1)))
    assert receipt == Receipt(device="dev-a", epoch=EPOCH, through=1)
    assert ("dev-a", EPOCH, 1) in centre.store.outcomes
    [receipt] = centre.take(broken(1))
    assert receipt.quarantined == []


def test_a_broken_copy_beside_a_good_one_spoils_nothing(centre: Centre) -> None:
    [receipt] = centre.take(broken(1), got(messages.result(seq=1)))
    assert receipt == Receipt(device="dev-a", epoch=EPOCH, through=1)


def test_another_devices_outcome_is_never_receipted(centre: Centre) -> None:
    topic, payload = "cxr/v1/dev-b/result", codec.encode(messages.result("dev-a", 1))
    assert centre.take(classify(Inbound(topic, payload, 1))) == []
    assert [odd.reason for odd in centre.store.rejected] == ["identity_mismatch"]


def test_a_hello_is_answered_with_what_is_stored(centre: Centre) -> None:
    asked = got(messages.hello(last=5), Channel.HELLO)
    assert centre.take(asked) == [Receipt(device="dev-a", epoch=EPOCH, through=0, answers="ab" * 8)]
    centre.take(got(messages.result(seq=1)), broken(2), got(messages.result(seq=4)))
    centre.restart()
    [answer] = centre.take(got(messages.hello(lowest=2, last=5), Channel.HELLO))
    assert answer == Receipt(
        device="dev-a", epoch=EPOCH, through=2, plus=[(4, 4)], quarantined=[Quarantined(2, "invalid")], answers="ab" * 8
    )
    assert centre.store.streams["dev-a", EPOCH].last_seq == 5


def test_a_hello_among_outcomes_is_answered_once(centre: Centre) -> None:
    receipts = centre.take(got(messages.result(seq=1)), got(messages.hello(), Channel.HELLO), got(messages.result(seq=2)))
    assert receipts == [Receipt(device="dev-a", epoch=EPOCH, through=2, answers="ab" * 8)]


def test_a_hello_closes_given_up_epochs(centre: Centre) -> None:
    asked = messages.hello(last=1)
    closing = type(asked)(
        device=asked.device, epoch=EPOCH, lowest_unreceipted=1, last_seq=1, nonce=asked.nonce, closed=[ClosedEpoch(OTHER_EPOCH, 7)]
    )
    centre.take(got(closing, Channel.HELLO))
    closed = centre.store.streams["dev-a", OTHER_EPOCH]
    assert (closed.closed, closed.last_seq, closed.through) == (True, 7, 0)
    assert not centre.store.streams["dev-a", EPOCH].closed


def test_only_what_is_alive_was_seen(centre: Centre) -> None:
    topic, payload = on_wire(messages.status("dev-a"), Channel.STATUS)
    centre.take(classify(Inbound(topic, payload, 1_000, retained=True)))
    assert centre.store.devices["dev-a"].seen_ms == 0
    centre.take(classify(Inbound(topic, payload, 2_000)), got(messages.status("dev-b", state="offline"), Channel.STATUS))
    assert centre.store.devices["dev-a"].seen_ms == 2_000
    assert centre.store.devices["dev-b"].seen_ms == 0


def test_the_largest_receipts_fit_the_contract(centre: Centre) -> None:
    far = 2**53 - 1
    evens = [got(messages.result(seq=seq)) for seq in range(far - 500, far, 2)]
    odds = [broken(seq, schema=2) for seq in range(far - 900, far - 600, 2)]
    receipts = centre.take(*evens) + centre.take(*odds)
    assert len(receipts) == 2 + 5
    assert all(len(codec.encode(receipt)) <= MAX_BYTES for receipt in receipts)
    assert sum(len(receipt.quarantined) for receipt in receipts) == len(odds)
    assert sum(len(receipt.plus) for receipt in receipts[:2]) == len(evens), "each range is named once"
    [answer, *_] = centre.take(got(messages.hello(lowest=far - 900, last=far), Channel.HELLO))
    assert len(codec.encode(answer)) <= MAX_BYTES
    assert len(answer.plus) == ledger._FEW_RANGES


def test_made_up_epochs_do_not_fill_the_memory(centre: Centre, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "STREAMS_IN_MEMORY", 20)
    for start in (0, 15, 30):
        some = [got(messages.hello(epoch=f"{number:032x}"), Channel.HELLO) for number in range(start, start + 30)]
        assert len(centre.take(*some)) == 30
        assert len(centre.ledger._streams) == 20


@settings(max_examples=60)
@given(
    arrivals=st.lists(st.tuples(st.integers(1, 12), st.sampled_from(["good", "other", "broken"]), st.booleans()), max_size=40),
    size=st.integers(1, 7),
)
def test_any_order_of_anything_keeps_the_promises(arrivals: list[tuple[int, str, bool]], size: int) -> None:
    """Every seq that arrived is receipted, none else; stored are those that came whole, as their first copy."""
    centre = Centre()
    first: dict[int, bytes] = {}
    seen: set[int] = set()
    for start in range(0, len(arrivals), size):
        decisions = []
        for seq, what, restart in arrivals[start : start + size]:
            decision = (
                broken(seq) if what == "broken" else got(messages.result(seq=seq, label="normal" if what == "other" else "covid"))
            )
            decisions.append(decision)
            if what != "broken":
                first.setdefault(seq, decision.payload)
            seen.add(seq)
            if restart and not decisions[1:]:
                centre.restart()
        [receipt] = centre.take(*decisions)
        receipted = set(range(1, receipt.through + 1)) | {s for a, b in receipt.plus for s in range(a, b + 1)}
        assert receipted == seen
        assert {one.seq for one in receipt.quarantined} <= seen - first.keys()
    assert {key[2]: kept.payload for key, kept in centre.store.outcomes.items()} == first


def receipted_by(receipt: Receipt, most: int) -> set[int]:
    return {seq for seq in range(1, most + 1) if seq in SeqSet(receipt.through, receipt.plus)}


@settings(max_examples=60, deadline=None)
@given(
    fate=st.lists(st.sampled_from(["held", "held", "absent", "never", "receipted", "broken"]), min_size=1, max_size=40),
    order=st.randoms(use_true_random=False),
    size=st.integers(1, 9),
    greets=st.booleans(),
)
def test_everything_is_receipted_in_the_end_however_many_holes_stay(
    fate: list[str], order: random.Random, size: int, greets: bool
) -> None:
    """The device has no row for what is absent, never gets a receipt for some, and has what is receipted no more to send."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledger, "_MANY_RANGES", 3)
        patch.setattr(ledger, "_FEW_RANGES", 2)
        centre, most = Centre(), len(fate)
        seqs = {what: {seq for seq, kind in enumerate(fate, 1) if kind == what} for what in set(fate)}
        centre.take(*(got(messages.result(seq=seq)) for seq in seqs.get("receipted", set())))
        at_centre = set(seqs.get("receipted", set()))
        waiting = [seq for seq, kind in enumerate(fate, 1) if kind in {"held", "never", "broken"}]
        order.shuffle(waiting)
        for round_ in range(3):
            for start in range(0, len(waiting), size):
                asked = [got(messages.hello(lowest=min(waiting), last=most), Channel.HELLO)] if greets else []
                sent = waiting[start : start + size]
                decisions = [got(messages.result(seq=seq)) if seq in seqs.get("held", ()) else broken(seq) for seq in sent]
                kept = [one for seq, one in zip(sent, decisions, strict=True) if seq not in seqs.get("never", ())]
                at_centre |= set(sent) - seqs.get("never", set())
                receipts = centre.take(*asked, *kept)
                told = set().union(*(receipted_by(receipt, most) for receipt in receipts))
                assert told <= at_centre
                assert set(sent) & at_centre <= told, "what was sent is receipted at once"
                for receipt in receipts:
                    assert len(receipt.plus) <= 3
                    if receipt.answers:
                        first, last = receipt.within or (1, most)
                        within = {seq for seq in at_centre if first <= seq <= last}
                        assert within <= receipted_by(receipt, most), "nothing is left out within"
            waiting = sorted(seqs.get("never", set()))
            if round_ == 1:
                centre.restart()
        assert at_centre == {seq for seq, kind in enumerate(fate, 1) if kind not in {"absent", "never"}}


def test_a_device_with_more_holes_than_a_receipt_names_is_done_at_once_and_stays_so(tmp_path: Path) -> None:
    """After a salvage 200 numbers are nowhere. A centre that loses its newest results gets them back all the same."""
    with closing(Outbox(tmp_path / "outbox.db", "dev-a")) as outbox:
        outbox._db.execute("PRAGMA synchronous = OFF")  # no power is cut here
        for number in range(600):
            outbox.record(Entry(f"{number}", "result", lambda seq: codec.encode(messages.result(seq=seq, epoch=outbox.epoch))))
        outbox._db.execute("DELETE FROM outcome WHERE number % 3 = 0")
        centre, lost = Centre(), []
        receipts = Receipts(outbox, lost=lambda: lost.append(1))

        def connect() -> int:
            """Greet, then send all that waits, as the relay does; return how many that were."""
            for hello in receipts.ask("mqtt"):
                for receipt in centre.take(got(hello, Channel.HELLO)):
                    receipts.take(receipt)
            rows = outbox.unreceipted(0, 1000)
            for row in rows:
                for receipt in centre.take(classify(Inbound("cxr/v1/dev-a/result", row.payload, 1))):
                    receipts.take(receipt)
            return len(rows)

        assert [connect(), outbox.waiting()] == [400, 0]
        assert [connect(), outbox.waiting(), lost] == [0, 0, []]
        for key in [key for key in centre.store.outcomes if key[2] > 500 or 450 < key[2] < 460]:
            del centre.store.outcomes[key]
        centre.restart()
        assert [connect(), outbox.waiting(), lost] == [66 + 6, 0, [1]]
        assert len(centre.store.outcomes) == 400
