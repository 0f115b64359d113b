"""The relay against a scripted link: what it says, in which order, and what it does with what comes back."""

import threading
import time
from collections import deque

import msgspec
import pytest

from edge.config import Device, Relay, Watch
from edge.contract.codec import decode_hello, decode_reply, decode_status, encode
from edge.contract.messages import Command, Quarantined, Receipt
from edge.contract.topics import Channel, topic
from edge.delivery.mqtt import NO_SUBSCRIBER, Acked, Closed, Connected, Message
from edge.delivery.relay import Relay as RelayProcess
from edge.delivery.status import StatusWriter
from edge.errors import CxrError
from edge.outbox.writer import Entry, Outbox

T = {channel: topic("clinic-1", channel) for channel in Channel}


class ScriptedLink:
    """Acknowledges everything with `code`; `centre` sees each publish and may answer."""

    def __init__(self, centre, code=0):
        self.centre, self.code = centre, code
        self.events, self.sent, self.mid, self.most, self.flying = deque([Connected()]), [], 0, 0, 0
        self.closed = False
        self.acknowledges = lambda name: True

    def publish(self, name, payload, *, retain=False):
        self.mid += 1
        self.sent.append((name, payload, retain))
        if name == T[Channel.RESULT]:
            self.flying += 1
            self.most = max(self.most, self.flying)
        if self.acknowledges(name):
            self.events.append(Acked(self.mid, self.code, "refused" if self.code >= 0x80 else ""))
        self.events.extend(self.centre(self, name, payload))
        return self.mid

    def subscribe(self, topics):
        self.subscribed = topics

    def poll(self, timeout_s):
        self.flying = 0
        if not self.events:
            time.sleep(min(timeout_s, 0.01))
        return self.events

    def close(self):
        self.closed = True

    def published(self, channel):
        return [payload for name, payload, _ in self.sent if name == T[channel]]


class StopWhen:
    def __init__(self, condition, most=600):
        self.condition, self.left = condition, most

    def is_set(self):
        self.left -= 1
        return self.left < 0 or self.condition()


@pytest.fixture
def device(tmp_path):
    return Device(
        device="clinic-1",
        facility="Clinic",
        state=str(tmp_path),
        site_key="k",
        watch=Watch(folder="f"),
        relay=Relay(receipt_timeout_s=0.05, window=20),
    )


@pytest.fixture
def outbox(tmp_path):
    outbox = Outbox(tmp_path / "outbox.db", "clinic-1")
    yield outbox
    outbox.close()


def fill(outbox, count):
    for number in range(count):
        outbox.record(Entry(f"k{outbox.last_seq()}-{number}", "result", lambda seq: f'{{"seq":{seq}}}'.encode()))


def run(device, outbox, link, condition):
    links = iter([link] if not isinstance(link, list) else link)
    wills = []

    def connect(will_topic, will):
        wills.append((will_topic, will))
        made = next(links, None)
        if made is None:
            raise CxrError("nobody there")
        return made

    RelayProcess(device, outbox, StatusWriter(device, None, outbox), connect).run(StopWhen(condition))
    return wills


def receipt(outbox, through, **more):
    return Message(T[Channel.RECEIPT], encode(Receipt(device="clinic-1", epoch=outbox.epoch, through=through, **more)))


def test_it_greets_delivers_and_forgets_only_after_the_receipt(device, outbox):
    fill(outbox, 60)

    def centre(link, name, payload):
        return [receipt(outbox, 60)] if len(link.published(Channel.RESULT)) == 60 else []

    link = ScriptedLink(centre)
    wills = run(device, outbox, link, lambda: outbox.waiting() == 0)
    assert [name for name, _, _ in link.sent[:2]] == [T[Channel.STATUS], T[Channel.HELLO]]
    assert link.sent[0][2], "the status is retained"
    hello = decode_hello(link.sent[1][1])
    assert (hello.lowest_unreceipted, hello.last_seq, hello.epoch) == (1, 60, outbox.epoch)
    assert [f'{{"seq":{n}}}'.encode() for n in range(1, 61)] == link.published(Channel.RESULT)[:60]
    assert link.most <= 20
    assert decode_status(wills[0][1]).state == "offline"
    assert wills[0][0] == T[Channel.STATUS]
    assert decode_status(link.published(Channel.STATUS)[-1]).state == "offline", "a planned end says so too"
    assert link.closed


@pytest.mark.parametrize("code", [0, NO_SUBSCRIBER, 0x87])
def test_whatever_the_broker_answers_only_a_receipt_counts(device, outbox, code):
    fill(outbox, 3)
    link = ScriptedLink(lambda *_: [], code)
    run(device, outbox, link, lambda: len(link.published(Channel.RESULT)) >= 6)
    assert outbox.waiting() == 3
    assert len(link.published(Channel.RESULT)) >= 6, "they are sent again"


def test_a_refusal_by_the_broker_is_said_once_in_words(device, outbox, caplog):
    fill(outbox, 5)
    link = ScriptedLink(lambda *_: [], 0x87)
    run(device, outbox, link, lambda: len(link.published(Channel.RESULT)) >= 10)
    assert caplog.text.count("check the device's name, its certificate and the broker's ACL") == 1


def test_receipts_that_are_not_for_this_outbox_change_nothing(device, outbox):
    fill(outbox, 2)
    other = [
        Message(T[Channel.RECEIPT], encode(Receipt(device="clinic-2", epoch=outbox.epoch, through=2))),
        Message(T[Channel.RECEIPT], encode(Receipt(device="clinic-1", epoch="0" * 32, through=2))),
        Message(T[Channel.RECEIPT], b"not a receipt"),
        Message("cxr/v1/clinic-1/else", b"?"),
    ]
    link = ScriptedLink(lambda link, name, payload: other if name == T[Channel.HELLO] else [])
    run(device, outbox, link, lambda: len(link.published(Channel.RESULT)) >= 4)
    assert outbox.waiting() == 2


@pytest.mark.parametrize(
    "more",
    [b',"through":0,"plus":[[2,1]]}', b',"through":"x","z":' + b"[" * 7000, b',"through":0,"z":"\xff"', b',"through":1e999}'],
)
def test_a_receipt_that_makes_no_sense_ends_nothing_and_holds_up_neither_way(device, outbox, more, caplog):
    """The broker has kept it, and sends it at every connection."""
    fill(outbox, 2)
    bad = Message(T[Channel.RECEIPT], b'{"device":"clinic-1","epoch":"%s"' % outbox.epoch.encode() + more)
    link = ScriptedLink(lambda link, name, payload: [bad] if name == T[Channel.HELLO] else [])
    steps = []

    class Second:
        def step(self, now):
            steps.append(now)

        def first_way_works(self, now):
            raise AssertionError("no receipt ended a wait")

    RelayProcess(device, outbox, StatusWriter(device, None, outbox), lambda *_: link, lambda receipts, commands: Second()).run(
        StopWhen(lambda: len(link.published(Channel.RESULT)) >= 4)
    )
    assert len(link.published(Channel.RESULT)) >= 4
    assert len(steps) > 4
    assert outbox.waiting() == 2
    assert caplog.text.count("was not understood") == 1


def test_what_the_centre_keeps_apart_counts_as_delivered(device, outbox):
    fill(outbox, 2)

    def centre(link, name, payload):
        return [receipt(outbox, 1, quarantined=[Quarantined(2, "invalid")])] if payload == b'{"seq":2}' else []

    run(device, outbox, ScriptedLink(centre), lambda: outbox.waiting() == 0)
    assert outbox.waiting() == 0
    assert outbox.listing(5)[0]["quarantined"] == "invalid"


def test_a_centre_restored_from_a_backup_gets_back_what_it_lost(device, outbox):
    fill(outbox, 10)
    outbox.mark_receipted(10, [])

    def centre(link, name, payload):
        if name == T[Channel.HELLO]:
            return [receipt(outbox, 4, plus=[(8, 8)], answers=decode_hello(payload).nonce)]
        return [receipt(outbox, 10)] if len(link.published(Channel.RESULT)) == 5 else []

    link = ScriptedLink(centre)
    run(device, outbox, link, lambda: len(link.published(Channel.RESULT)) >= 5 and outbox.waiting() == 0)
    assert link.published(Channel.RESULT) == [f'{{"seq":{n}}}'.encode() for n in (5, 6, 7, 9, 10)]


def test_a_greeting_is_repeated_until_the_centre_has_answered(device, outbox):
    fill(outbox, 1)
    device = msgspec.structs.replace(device, relay=Relay(receipt_timeout_s=60, status_every_s=0.01))

    def centre(link, name, payload):
        asked = link.published(Channel.HELLO)
        return [receipt(outbox, 0, answers=decode_hello(payload).nonce)] if name == T[Channel.HELLO] and len(asked) == 3 else []

    link = ScriptedLink(centre)
    run(device, outbox, link, lambda: len(link.published(Channel.STATUS)) >= 8)
    assert len(link.published(Channel.HELLO)) == 3
    assert len(set(link.published(Channel.HELLO))) == 3, "an answer to an earlier question may have been overtaken"


def test_an_old_receipt_with_a_low_watermark_is_no_loss(device, outbox):
    fill(outbox, 10)
    outbox.mark_receipted(10, [])
    stale = receipt(outbox, 4, answers="0" * 32)
    link = ScriptedLink(lambda link, name, payload: [stale] if name == T[Channel.HELLO] else [])
    run(device, outbox, link, lambda: False)
    assert outbox.waiting() == 0


def test_it_answers_the_centre(device, outbox):
    commands = [
        Message(T[Channel.COMMAND], encode(Command(device="clinic-1", id="a" * 16, verb="ping"))),
        Message(T[Channel.COMMAND], encode(Command(device="clinic-1", id="b" * 16, verb="format_disk"))),
        Message(T[Channel.COMMAND], b"?"),
    ]
    link = ScriptedLink(lambda link, name, payload: commands if name == T[Channel.HELLO] else [])
    run(device, outbox, link, lambda: len(link.published(Channel.REPLY)) == 2)
    assert [(r.id, r.ok) for r in map(decode_reply, link.published(Channel.REPLY))] == [("a" * 16, True), ("b" * 16, False)]


def test_a_broker_that_acknowledges_nothing_is_left_and_tried_anew(device, outbox, monkeypatch, caplog):
    monkeypatch.setattr("edge.delivery.relay._ANSWER_WITHIN_S", 0.2)
    monkeypatch.setattr("edge.delivery.relay._BACKOFF_S", (0.01, 0.02))
    fill(outbox, 3)
    deaf = ScriptedLink(lambda *_: [])
    deaf.acknowledges = lambda name: name != T[Channel.RESULT]
    good = ScriptedLink(lambda link, name, payload: [receipt(outbox, 3)] if len(link.published(Channel.RESULT)) == 3 else [])
    run(device, outbox, [deaf, good], lambda: outbox.waiting() == 0)
    assert outbox.waiting() == 0
    assert len(deaf.published(Channel.RESULT)) == 3, "what is in flight is not sent again on the same connection"
    assert deaf.closed
    assert "acknowledges nothing that it is sent" in caplog.text


def test_a_broker_that_is_slow_is_not_left(device, outbox, monkeypatch):
    monkeypatch.setattr("edge.delivery.relay._ANSWER_WITHIN_S", 0.2)
    device = msgspec.structs.replace(device, relay=Relay(receipt_timeout_s=60, window=20))
    fill(outbox, 3)
    slow = ScriptedLink(lambda *_: [])
    slow.acknowledges = lambda name: False
    began = time.monotonic()
    run(device, outbox, slow, lambda: time.monotonic() - began > 0.6)
    assert decode_status(slow.published(Channel.STATUS)[-1]).state == "offline", "it was told to stop"


def test_after_a_lost_connection_it_connects_again_and_goes_on(device, outbox, monkeypatch):
    monkeypatch.setattr("edge.delivery.relay._BACKOFF_S", (0.01, 0.02))
    fill(outbox, 3)
    first = ScriptedLink(lambda link, name, payload: [Closed("gone")] if name == T[Channel.RESULT] else [])
    refused = ScriptedLink(lambda *_: [])
    refused.events = deque([Closed("the broker refused the connection: Not authorized")])
    last = ScriptedLink(lambda link, name, payload: [receipt(outbox, 3)] if len(link.published(Channel.RESULT)) == 3 else [])
    run(device, outbox, [first, refused, last], lambda: outbox.waiting() == 0)
    assert outbox.waiting() == 0


def test_results_recorded_while_connected_go_out(device, outbox, tmp_path):
    link = ScriptedLink(lambda link, name, payload: [receipt(outbox, 1)] if name == T[Channel.RESULT] else [])
    writer = threading.Timer(0.05, lambda: fill_from_elsewhere(tmp_path))
    writer.start()
    run(device, outbox, link, lambda: bool(link.published(Channel.RESULT)))
    writer.join()
    assert link.published(Channel.RESULT) == [b'{"seq":1}']


def fill_from_elsewhere(folder):
    other = Outbox(folder / "outbox.db", "clinic-1")
    fill(other, 1)
    other.close()
