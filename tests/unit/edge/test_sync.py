"""The second way against a scripted exchange: when it is used, what it sends, what it does with the answers."""

import pytest

from edge.contract.codec import decode_hello, decode_status, encode
from edge.contract.frames import MAX_BODY, Frame, pack, unpack
from edge.contract.messages import Quarantined, Receipt, Reply, Status
from edge.contract.seqset import SeqSet
from edge.contract.topics import Channel
from edge.delivery.fallback import FEWEST, HEAD_START_S, Fallback
from edge.delivery.receipts import Receipts
from edge.delivery.sync import Answer, SyncRoute
from edge.outbox.writer import Entry, Outbox

AFTER = 30.0


class Scripted:
    """Answers each batch by `centre(frames)`, one step later."""

    def __init__(self, centre):
        self.centre, self.sent, self.answer = centre, [], None

    @property
    def busy(self):
        return self.answer is not None

    def begin(self, body, now):
        assert not self.busy
        assert len(body) <= MAX_BODY
        self.sent.append(unpack(body))
        self.answer = self.centre

    def poll(self, now):
        centre, self.answer = self.answer, None
        answer = centre(self.sent[-1])
        return answer if isinstance(answer, Answer) else Answer(pack(Frame(Channel.RECEIPT, encode(one)) for one in answer))

    def seqs(self, batch=-1):
        return [int(frame.payload) for frame in self.sent[batch] if frame.channel is Channel.RESULT]


class Line:
    """An outbox, its second way, and a clock that jumps."""

    def __init__(self, folder, centre):
        self.outbox = Outbox(folder / "outbox.db", "clinic-1")
        self.outbox._db.execute("PRAGMA synchronous = OFF")  # no power is cut here
        self.exchange = Scripted(centre)
        self.held, self.rewound, self.now = [], 0, 1000.0
        self.receipts = Receipts(self.outbox, lambda held, also: self.held.append((held, also)), self.lost)
        status = Status(device="clinic-1", facility="Clinic", state="online", software="1")
        self.route = SyncRoute(self.outbox, self.receipts, lambda: status, self.exchange, AFTER, self.obey)

    def lost(self):
        self.rewound += 1

    def obey(self, command):
        return Reply(device=command.device, id=command.id, ok=True, detail=command.verb)

    def record(self, count, payload=lambda seq: b"%d" % seq):
        for _ in range(count):
            self.outbox.record(Entry(f"k{self.outbox.last_seq()}", "result", payload))

    def pass_time(self, seconds, step=0.5):
        until = self.now + seconds
        while self.now < until:
            self.route.step(self.now)
            self.now += step

    def receipt(self, through, **more):
        return Receipt(device="clinic-1", epoch=self.outbox.epoch, through=through, **more)

    def holds_all(self, frames):
        """A centre that takes everything."""
        nonce = decode_hello(frames[0].payload).nonce
        return [self.receipt(max(int(f.payload) for f in frames if f.channel is Channel.RESULT), answers=nonce)]


@pytest.fixture
def line(tmp_path):
    made = Line(tmp_path, lambda frames: [])
    made.exchange.centre = made.holds_all
    yield made
    made.outbox.close()


def test_what_waits_too_long_goes_by_the_second_way_and_is_marked_by_its_receipt(line):
    line.record(1200)
    line.pass_time(AFTER - 1)
    assert line.exchange.sent == []
    line.pass_time(5)
    assert [len(line.exchange.seqs(batch)) for batch in range(3)] == [500, 500, 200]
    assert line.outbox.waiting() == 0
    assert line.held[-1] == (SeqSet(1200), []), "MQTT need not send them any more"
    hello = decode_hello(line.exchange.sent[0][0].payload)
    assert (hello.device, hello.epoch, hello.lowest_unreceipted, hello.last_seq) == ("clinic-1", line.outbox.epoch, 1, 1200)
    assert decode_status(line.exchange.sent[0][1].payload).state == "online"
    assert line.exchange.sent[0][2] == Frame(Channel.RESULT, b"1")


def test_nothing_goes_by_it_while_mqtt_brings_receipts(line):
    for _ in range(50):
        line.record(2)
        line.pass_time(AFTER / 3)
        line.outbox.mark_receipted(line.outbox.last_seq() - 1, [])
        line.route.first_way_works(line.now)
    assert line.exchange.sent == []


def test_nothing_is_asked_while_nothing_waits(line):
    line.pass_time(AFTER * 10)
    line.record(1)
    line.pass_time(AFTER - 1)
    assert line.exchange.sent == [], "the time before the outcome was there does not count"


def test_once_in_use_it_takes_new_outcomes_after_a_head_start_until_mqtt_works(line, caplog):
    caplog.set_level("INFO")
    line.record(1)
    line.pass_time(AFTER + 2)
    line.record(1)
    line.pass_time(HEAD_START_S - 0.5)
    assert len(line.exchange.sent) == 1
    line.pass_time(2)
    assert len(line.exchange.sent) == 2
    line.route.first_way_works(line.now)
    line.record(1)
    line.pass_time(AFTER - 1)
    assert len(line.exchange.sent) == 2, "it rests"
    assert [record.message for record in caplog.records] == [
        "MQTT brings no receipts; results go by HTTPS",
        "MQTT brings receipts again; HTTPS rests",
    ]


@pytest.mark.parametrize(
    "answer",
    [Answer(trouble="Nobody there."), Answer(b"no gzip"), Answer(pack([Frame(Channel.RECEIPT, b"?")])), []],
)
def test_trouble_is_said_once_loses_nothing_and_is_tried_less_and_less_often(tmp_path, caplog, answer):
    line = Line(tmp_path, lambda frames: answer)
    line.record(600)
    line.pass_time(AFTER + 600)
    assert len([record for record in caplog.records if record.levelname == "WARNING"]) == 1
    assert line.outbox.waiting() == 600
    assert 8 <= len(line.exchange.sent) <= 16
    sizes = [len(line.exchange.seqs(batch)) for batch in range(len(line.exchange.sent))]
    assert sizes[0] == 500
    assert sizes[-1] == FEWEST, "smaller ones get through a thin link"
    line.exchange.centre = line.holds_all
    line.pass_time(120)
    assert line.outbox.waiting() == 0
    line.outbox.close()


def test_the_centre_can_ask_for_a_pause(tmp_path):
    line = Line(tmp_path, lambda frames: Answer(trouble="busy", wait_s=300.0))
    line.record(1)
    line.pass_time(AFTER + 250)
    assert len(line.exchange.sent) == 1
    line.pass_time(250)
    assert len(line.exchange.sent) == 2
    line.outbox.close()


def test_one_outcome_that_gets_no_receipt_holds_up_no_other(tmp_path):
    def centre(frames):
        seqs = [int(f.payload) for f in frames if f.channel is Channel.RESULT and f.payload != b"3"]
        return [line.receipt(2, plus=[(4, max(seqs))])] if seqs and max(seqs) > 4 else []

    line = Line(tmp_path, centre)
    line.record(1100)
    line.pass_time(AFTER + 300)
    assert line.outbox.waiting() == 1
    line.outbox.close()


def test_many_outcomes_that_get_no_receipt_hold_up_no_new_one(tmp_path):
    def centre(frames):
        seqs = [int(f.payload) for f in frames if f.channel is Channel.RESULT]
        return [line.receipt(0, plus=[(100, 100)])] if max(seqs) > 99 else []

    line = Line(tmp_path, centre)
    line.record(99)
    line.pass_time(AFTER + 300)
    assert len(line.exchange.seqs()) == FEWEST
    line.record(1)
    line.pass_time(1200)
    assert line.outbox.waiting() == 99
    line.outbox.close()


def test_a_batch_of_large_outcomes_is_cut_to_what_the_centre_takes(line):
    import os

    def centre(frames):
        seqs = [int(f.payload.split(b" ")[0]) for f in frames if f.channel is Channel.RESULT]
        return [line.receipt(max(seqs))]

    line.exchange.centre = centre
    line.record(120, lambda seq: b"%d " % seq + os.urandom(4090).hex().encode())
    line.pass_time(AFTER + 10)
    assert line.outbox.waiting() == 0
    assert len(line.exchange.sent) > 1


def test_what_the_centre_keeps_apart_counts_as_delivered(tmp_path):
    line = Line(tmp_path, lambda frames: [line.receipt(1, quarantined=[Quarantined(2, "invalid")])])
    line.record(2)
    line.pass_time(AFTER + 2)
    assert line.outbox.waiting() == 0
    assert line.outbox.listing(5)[0]["quarantined"] == "invalid"
    line.outbox.close()


def test_a_centre_that_lost_what_it_had_gets_it_back_this_way_too(line):
    line.record(10)
    line.outbox.mark_receipted(10, [])
    line.record(1)

    def restored(frames):
        seqs = [int(f.payload) for f in frames if f.channel is Channel.RESULT]
        nonce = decode_hello(frames[0].payload).nonce
        return [line.receipt(4, plus=[(11, 11)], answers=nonce)] if seqs == [11] else [line.receipt(11, answers=nonce)]

    line.exchange.centre = restored
    line.pass_time(AFTER + 10)
    assert line.rewound == 1
    assert line.exchange.seqs() == [5, 6, 7, 8, 9, 10]
    assert line.outbox.waiting() == 0


def test_an_answer_that_a_receipt_by_mqtt_has_overtaken_is_no_loss(line, caplog):
    line.record(10)

    def overtaken(frames):
        line.receipts.take(line.receipt(10))  # by MQTT, while this answer is on its way
        return [line.receipt(4, answers=decode_hello(frames[0].payload).nonce)]

    line.exchange.centre = overtaken
    line.pass_time(AFTER + 10)
    assert line.rewound == 0
    assert line.outbox.waiting() == 0
    assert len(line.exchange.sent) == 1
    assert caplog.records == [], "and no trouble"


def test_an_answer_to_another_question_is_no_loss(line):
    line.record(10)
    line.outbox.mark_receipted(10, [])
    line.receipts.ask("https")
    line.receipts.take(line.receipt(4, answers="0" * 32))
    line.receipts.take(line.receipt(4))
    assert line.rewound == 0
    assert line.outbox.waiting() == 0


def test_receipts_for_another_outbox_change_nothing(line):
    line.record(2)
    assert line.receipts.take(Receipt(device="clinic-2", epoch=line.outbox.epoch, through=2)) == 0
    assert line.receipts.take(Receipt(device="clinic-1", epoch="0" * 32, through=2)) == 0
    assert line.outbox.waiting() == 2
    assert line.held == []


def test_a_small_time_is_kept_also_when_in_use():
    fallback = Fallback(0.1)
    fallback.waiting(0.0, True)
    fallback.delivered()
    assert fallback.due(0.2)
