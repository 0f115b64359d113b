"""Which outcomes the PACS is told of, how far it was told, and what becomes of what it refuses."""

import json
import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from edge.config import Decode, Pacs, load_config
from edge.contract.codec import decode_outcome
from edge.contract.messages import Failure, Refusal, Result, Void
from edge.infer.local import LocalFacts, LocalStore
from edge.intake.spool import Spool
from edge.outbox.reading import Reading
from edge.outbox.writer import Outbox
from edge.pacs.courier import Courier, Lost
from edge.pacs.cursor import Place, begin, keep_place, read_place
from edge.pacs.messenger import MOST_BREAKS, MOST_TRIALS, Messenger
from edge.pacs.orders import PICTURE, REPORT, Echo, Order, Sent
from edge.pacs.waiting import Waiting
from tests.support.clinic import small_picture
from tests.support.dicom import film
from tests.support.pacs import HEAT, Answers, pacs_device
from tests.support.processes import running, wait_for

BOTH = Sent(taken=(REPORT, PICTURE))


class Scripted:
    """Takes what it is given as `answer` says; keeps (seq, kinds) and whole orders."""

    def __init__(self):
        self.answer = lambda order: BOTH
        self.orders = []
        self.rests = 0

    def deliver(self, order):
        self.orders.append(order)
        return self.answer(order)

    def rest(self):
        self.rests += 1

    def told(self):
        return [(decode_outcome(order.outcome).seq, set(order.kinds)) for order in self.orders]


class Bench:
    def __init__(self, home, *lines):
        self.device = pacs_device(home, 104, *lines)
        self.settings = load_config(self.device.config).pacs
        self.answers = Answers(self.device)
        self.film = film(home / "film.dcm", "1.2.826.0.9.1")
        self.courier = Scripted()
        self.now = 0.0

    @property
    def state(self):
        return self.device.state

    @property
    def place(self):
        return read_place(self.state)

    def messenger(self):
        """As a process that has just started."""
        reading = Reading(self.state / "outbox.db", self.device.name)
        waiting = Waiting(self.state, self.settings, Decode(), LocalStore(self.state))
        return Messenger(self.state, reading, waiting, self.courier, pauses=(8.0, 64.0), clock=lambda: self.now)

    def run(self, messenger=None, steps=50):
        """Step until there is something to wait for; return the pause."""
        messenger = messenger or self.messenger()
        for _ in range(steps):
            if pause := messenger.step():
                return pause
        raise AssertionError("it does not come to rest")

    def run_for(self, messenger, seconds, steps=200):
        """Run as long, by a clock of its own that moves on in so many steps at most."""
        until = self.now + seconds
        while self.now < until:
            pause = messenger.step()
            self.now += pause and max(pause, seconds / steps)


@pytest.fixture
def bench(tmp_path):
    made = Bench(tmp_path)
    yield made
    made.answers.outbox.close()


def test_each_kind_of_outcome_is_told_once_in_the_order_of_its_number(bench):
    for kind in (Result, Refusal, Failure, Result):
        bench.answers.add(kind, bench.film)
    bench.answers.add(Void, None, voids=2)
    bench.run()
    assert bench.courier.told() == [(1, {PICTURE, REPORT}), (3, {REPORT}), (4, {PICTURE, REPORT}), (5, {REPORT})]
    first, *_, last = bench.courier.orders
    assert (first.heat, bool(first.header), first.voided) == (HEAT, True, b"")
    assert decode_outcome(last.voided).seq == 2
    assert last.header == first.header, "into the study of what it takes back"
    bench.run()
    assert len(bench.courier.orders) == 4, "told, and not again"
    assert bench.courier.rests, "the child ends while there is nothing to do"


def test_a_result_that_was_taken_back_meanwhile_is_not_sent_any_more(bench):
    bench.answers.add(Result, bench.film)
    bench.answers.add(Void, None, voids=1)
    bench.run()
    assert bench.courier.told() == [(2, {REPORT})]


@pytest.mark.parametrize("kept", [{"shown": False}, {"test": True}])
def test_neither_of_what_the_clinic_is_not_shown_nor_of_a_test_film_is_the_pacs_told(bench, kept):
    bench.answers.add(Result, bench.film, **kept)
    bench.answers.add(Void, None, voids=1)
    bench.answers.add(Result, bench.film, shown=True)
    bench.run()
    assert bench.courier.told() == [(3, {PICTURE, REPORT})]


def test_what_is_no_dicom_has_no_study(bench, tmp_path):
    png = small_picture(tmp_path / "a.png", 1)
    bench.answers.add(Result, png, keep_header=False)
    bench.run()
    assert bench.courier.orders == []
    assert bench.place.through == {bench.answers.outbox.epoch: 1}


def test_once_the_film_is_gone_the_report_goes_alone(bench):
    for _ in range(2):
        bench.answers.add(Result, bench.film)
    bench.answers.add(Result, bench.film, keep_header=False)
    for seq in (1, 3):
        bench.answers.forget_film(seq)
    bench.run()
    assert bench.courier.told() == [(1, {REPORT}), (2, {PICTURE, REPORT})], "of the third nothing is left that names a study"


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (["picture = false"], [(1, {REPORT}), (2, {REPORT}), (3, {REPORT})]),
        (["report = false"], [(1, {PICTURE})]),
        (["refusals = false"], [(1, {PICTURE, REPORT})]),
        (["report = false", "picture = false"], []),
    ],
)
def test_the_site_chooses_what_is_sent(tmp_path, lines, told):
    bench = Bench(tmp_path, *lines)
    for kind in (Result, Refusal, Failure):
        bench.answers.add(kind, bench.film)
    bench.run()
    assert bench.courier.told() == told
    bench.answers.outbox.close()


def test_while_the_pacs_is_away_nothing_is_lost_and_the_pauses_grow_to_a_bound(bench):
    for _ in range(2):
        bench.answers.add(Result, bench.film)
    bench.courier.answer = lambda order: Sent(away="nobody there")
    messenger = bench.messenger()
    pauses = [bench.run(messenger) for _ in range(12)]
    assert all(4.0 <= pause <= 64.0 for pause in pauses)
    assert pauses[0] <= 8.0 < max(pauses)
    assert {seq for seq, _ in bench.courier.told()} == {1}, "in order: the second waits for the first"
    bench.courier.answer = lambda order: BOTH
    bench.courier.orders.clear()
    bench.run(messenger)
    assert [seq for seq, _ in bench.courier.told()] == [1, 2]
    assert bench.place.refused == 0


def test_a_kill_before_the_place_is_kept_repeats_the_outcome(bench, monkeypatch):
    bench.answers.add(Result, bench.film)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("edge.pacs.messenger.keep_place", killed)
        with pytest.raises(KeyboardInterrupt):
            bench.run()
    bench.run()
    first, second = bench.courier.orders
    assert first == second


def test_what_is_refused_time_and_again_is_counted_and_holds_up_nobody(bench, caplog):
    for _ in range(3):
        bench.answers.add(Result, bench.film)

    def picky(order):
        if decode_outcome(order.outcome).seq == 2:
            return Sent(taken=(REPORT,), refused={PICTURE: "0xC000"})
        return BOTH

    bench.courier.answer = picky
    for _ in range(MOST_TRIALS):
        bench.run()  # each as a process of its own: trials survive it
    assert [seq for seq, _ in bench.courier.told()] == [1, *[2] * MOST_TRIALS, 3]
    assert bench.place == Place(through={bench.answers.outbox.epoch: 3}, refused=1)
    assert "0xC000" in caplog.text


def breaks_off_over(*seqs, kind=PICTURE):
    """Return a PACS that ends the association over one kind of object of some outcomes."""

    def answer(order):
        if decode_outcome(order.outcome).seq not in seqs:
            return BOTH
        taken = tuple({PICTURE, REPORT} - {kind}) if kind == PICTURE else ()
        return Sent(taken=taken, broken={kind: "ended the association"})

    return answer


@pytest.mark.parametrize("kind", [PICTURE, REPORT])
def test_what_the_pacs_breaks_off_over_holds_up_nobody_and_is_refused_in_the_end(bench, caplog, kind):
    for _ in range(3):
        bench.answers.add(Result, bench.film)
    bench.courier.answer = breaks_off_over(1, kind=kind)
    messenger = bench.messenger()
    bench.run_for(messenger, 30)
    assert {seq for seq, _ in bench.courier.told()} == {1, 2, 3}, "the others go on"
    assert bench.place.refused == 0
    assert [one.seq for one in bench.place.put_off] == [1], "and it is not forgotten"
    for _ in range(MOST_BREAKS):
        bench.run_for(messenger, 64 * 2**MOST_BREAKS)
        bench.answers.add(Result, bench.film)
    bench.run_for(messenger, 64)
    assert bench.place == Place(through={bench.answers.outbox.epoch: 3 + MOST_BREAKS}, refused=1)
    assert "it is put off" in caplog.text
    assert "it is not sent any more" in caplog.text
    told = len(bench.courier.orders)
    bench.run_for(messenger, 10_000)
    assert len(bench.courier.orders) == told


def test_what_is_put_off_is_tried_after_a_restart_and_is_told_when_the_pacs_takes_it(bench):
    for _ in range(2):
        bench.answers.add(Result, bench.film)
    bench.courier.answer = breaks_off_over(1)
    bench.run_for(bench.messenger(), 30)
    bench.courier.answer = lambda order: BOTH
    bench.courier.orders.clear()
    bench.run()
    assert [seq for seq, _ in bench.courier.told()] == [1]
    assert bench.place == Place(through={bench.answers.outbox.epoch: 2})


def test_a_pacs_that_takes_no_picture_keeps_no_report_waiting(bench):
    for _ in range(10):
        bench.answers.add(Result, bench.film)
    bench.courier.answer = breaks_off_over(*range(1, 11))
    bench.run_for(bench.messenger(), 85)
    assert {seq for seq, _ in bench.courier.told()} == set(range(1, 11)), "eight seconds at most between two"


def test_a_pacs_that_breaks_off_over_everything_loses_nothing(bench):
    for _ in range(3):
        bench.answers.add(Result, bench.film)
    bench.courier.answer = breaks_off_over(*range(1, 100), kind=REPORT)
    messenger = bench.messenger()
    bench.run_for(messenger, 100_000)
    assert bench.place.refused == 0
    assert len(bench.courier.orders) < 100_000 / 32, "the pauses grow"
    bench.courier.answer = lambda order: BOTH
    bench.courier.orders.clear()
    bench.run_for(messenger, 1000)
    assert sorted(seq for seq, _ in bench.courier.told()) == [1, 2, 3]
    assert bench.place == Place(through={bench.answers.outbox.epoch: 3})


def test_what_is_put_off_and_then_taken_back_or_removed_is_not_sent_any_more(bench):
    for _ in range(2):
        bench.answers.add(Result, bench.film)
    bench.courier.answer = breaks_off_over(1, 2, kind=REPORT)
    messenger = bench.messenger()
    bench.run_for(messenger, 30)
    bench.answers.add(Void, None, voids=1)
    outbox = bench.answers.outbox
    outbox._db.execute("DELETE FROM outcome WHERE number = 2")
    bench.courier.orders.clear()
    bench.courier.answer = lambda order: BOTH
    bench.run_for(messenger, 1000)
    assert bench.courier.told() == [(3, {REPORT})]
    assert bench.place == Place(through={outbox.epoch: 3}, gone=1)


def test_an_outcome_that_ends_the_child_is_told_without_its_picture_and_then_given_up(bench):
    for _ in range(2):
        bench.answers.add(Result, bench.film)

    def deadly(order):
        if decode_outcome(order.outcome).seq == 1:
            raise Lost("its process ended")
        return BOTH

    bench.courier.answer = deadly
    for _ in range(MOST_TRIALS):
        bench.run()
    assert bench.courier.told() == [(1, {PICTURE, REPORT}), *[(1, {REPORT})] * (MOST_TRIALS - 1), (2, {PICTURE, REPORT})]
    assert bench.place.refused == 1


def test_what_goes_wrong_in_the_child_names_nobody(capfd):
    link = Pacs(address="127.0.0.1", called_ae_title="PACS")
    courier = Courier(Decode())
    order = Order(link=link, outcome=b'{"kind": "Canary^Name"}', max_bytes=1, max_pixels=1)
    try:
        with pytest.raises(Lost, match="ended"):
            courier.deliver(order)
    finally:
        courier.rest()
    said = capfd.readouterr().err
    assert "could not be made (ContractError)" in said
    assert "Canary" not in said


def test_a_child_that_takes_too_long_is_ended(monkeypatch):
    monkeypatch.setattr("edge.pacs.courier._START_S", -1000.0)
    courier = Courier(Decode())
    with pytest.raises(Lost, match="too long"):
        courier.deliver(Echo(Pacs(address="127.0.0.1", called_ae_title="PACS"), (REPORT,)))
    assert courier._child is None


def test_what_was_removed_for_room_before_it_was_sent_is_counted(bench):
    for _ in range(5):
        bench.answers.add(Result, bench.film)
    outbox = bench.answers.outbox
    outbox.mark_receipted(4, [])
    outbox.evict(2)
    bench.run()
    assert [seq for seq, _ in bench.courier.told()] == [3, 4, 5]
    outbox.mark_receipted(5, [])
    bench.answers.add(Result, bench.film)
    outbox.mark_receipted(6, [])
    outbox.evict(100)
    bench.run()
    assert bench.place == Place(through={outbox.epoch: 6}, gone=3)


def test_outcomes_of_an_earlier_epoch_are_told_too(bench):
    """As after a damaged outbox was rebuilt: saved outcomes keep their epoch, and a new one begins."""
    for _ in range(3):
        bench.answers.add(Result, bench.film)
    bench.run()
    bench.answers.add(Result, bench.film)
    old, outbox = bench.answers.outbox.epoch, bench.answers.outbox
    outbox._db.execute("INSERT INTO stream VALUES (4, ?, ?, 0)", (outbox.device, "f" * 32))
    outbox.close()
    bench.answers.outbox = Outbox(bench.state / "outbox.db", bench.device.name)
    bench.answers.add(Result, bench.film)
    bench.run()
    assert [seq for seq, _ in bench.courier.told()] == [1, 2, 3, 4, 1]
    assert bench.place.through == {old: 4, "f" * 32: 1}


def test_it_begins_with_what_is_recorded_after_it_was_configured(tmp_path):
    with closing(Outbox(tmp_path / "outbox.db", "clinic-1")) as outbox:
        outbox._db.execute("UPDATE stream SET last_seq = 7")
        begin(tmp_path, outbox)
        outbox._db.execute("UPDATE stream SET last_seq = 9")
        begin(tmp_path, outbox)
        assert read_place(tmp_path) == Place(through={outbox.epoch: 7}), "the first word counts"
    assert sorted(path.name for path in tmp_path.iterdir() if "pacs" in path.name) == ["pacs.json"]


def test_of_two_processes_that_begin_at_once_the_first_word_counts(tmp_path, monkeypatch):
    def a_moment_too_late(*_):
        keep_place(tmp_path, Place(through={"first": 3}))

    monkeypatch.setattr("edge.pacs.cursor.fcntl.flock", a_moment_too_late)
    with closing(Outbox(tmp_path / "outbox.db", "clinic-1")) as outbox:
        begin(tmp_path, outbox)
    assert read_place(tmp_path) == Place(through={"first": 3})


def test_infer_says_so_before_it_records_anything(tmp_path):
    device = pacs_device(tmp_path / "device", 104)
    small_picture(tmp_path / "a.png", 1)
    Spool(device.state).admit(tmp_path / "a.png")
    with running([sys.executable, "-m", "edge.cli", "infer", "--config", str(device.config)], device.log):
        wait_for(lambda: device.waiting() == 1, "its outcome", 30)
    assert list(read_place(device.state).through.values()) == [0]


def test_a_place_that_cannot_be_read_tells_again_rather_than_not_at_all(bench):
    for _ in range(2):
        bench.answers.add(Result, bench.film)
    bench.run()
    (bench.state / "pacs.json").write_bytes(b"\0" * 40)
    bench.run()
    assert [seq for seq, _ in bench.courier.told()] == [1, 2, 1, 2]


def test_a_place_is_replaced_whole(tmp_path):
    keep_place(tmp_path, Place(through={"a": 1}))
    keep_place(tmp_path, Place(through={"a": 2}, refused=3))
    assert json.loads((tmp_path / "pacs.json").read_text())["refused"] == 3
    assert (tmp_path / "pacs.json").stat().st_mode & 0o777 == 0o600
    assert read_place(tmp_path / "nowhere") is None


def test_without_a_pacs_what_only_that_needs_is_not_kept(tmp_path):
    facts = LocalFacts(patient_name="A^B", study=b"\x10\0\x10\0\4\0\0\0A^B ")
    LocalStore(tmp_path).write("a" * 32, facts)
    assert LocalStore(tmp_path).read("a" * 32) == LocalFacts(patient_name="A^B")
    LocalStore(tmp_path, for_pacs=True).write("b" * 32, facts)
    assert LocalStore(tmp_path).read("b" * 32) == facts


def test_the_child_finishes_what_it_has_in_hand_when_the_whole_group_is_told_to_end():
    """As by Ctrl-C, or by a service manager that tells every process of a unit: else a stop would count as a failed answer."""
    command = [sys.executable, "-m", "edge.pacs.child", str(os.getpid()), "1024", "30"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        wait_for(lambda: _ignores(child.pid, signal.SIGTERM) and _ignores(child.pid, signal.SIGINT), "it has begun", 30)
        child.send_signal(signal.SIGTERM)
        child.send_signal(signal.SIGINT)
        assert child.stdin is not None
        child.stdin.close()
        assert child.wait(20) == 0


def _ignores(pid, number):
    status = Path(f"/proc/{pid}/status").read_text()
    (ignored,) = (int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigIgn"))
    return bool(ignored >> (number - 1) & 1)
