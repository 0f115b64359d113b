"""What `infer` asks before each result and tells after it: real outbox, real journal, restarts in between."""

from __future__ import annotations

import hashlib
import os
import random
from contextlib import contextmanager

import msgspec
import pytest

from edge.commissioning.journal import journal_path, read_events, read_standing
from edge.commissioning.silence import Site, open_silence
from edge.commissioning.standing import ELSE, UNDECIDED, Released, Silenced, Withdrawn
from edge.config import Commissioning
from edge.contract.codec import encode
from edge.outbox.writer import Entry, Outbox
from edge.requests import ReadingRequest, ReleaseRequest, Requests, SilenceRequest, VoidRequest
from tests.golden.examples import EXAMPLES

OWN = 0.4
SITE = Site(Commissioning(readings=2, drift_once_in=5000), "b" * 64, OWN)
RELEASE = ReleaseRequest(by="N. N.")


class Bench:
    def __init__(self, home, site=SITE):
        self.home, self.site = home, site
        self.outbox = Outbox(home / "outbox.db", "clinic-7")
        self.silence = open_silence(home, site, self.outbox)

    def restart(self, **changes):
        self.silence.close()
        self.outbox.close()
        site = Site(**{name: changes.get(name, getattr(self.site, name)) for name in ("settings", "bundle", "own", "fixed")})
        self.__init__(self.home, site)

    def add(self, key=None, typicality=0.5, **changes):
        """Record a result as `infer` does; return its seq."""
        number = self.outbox.last_seq() + 1 if key is None else key
        source = hashlib.sha256(str(number).encode()).hexdigest()

        def payload(seq):
            fields = {"epoch": self.outbox.epoch, "seq": seq, "source_key": source, "typicality": typicality}
            fields |= {"pixel_hash": f"{number:064x}", "shown": self.silence.shown, "quality": []}
            return encode(msgspec.structs.replace(EXAMPLES["result"], **({"test": False} | fields | changes)))

        seq, _ = self.outbox.record(Entry(source, "result", payload))
        self.silence.catch_up()
        return seq

    def take_back(self, voids):
        """As `infer` does before it tells of it."""
        self.outbox.record(
            Entry(
                f"{voids:064x}",
                "void",
                lambda seq: encode(msgspec.structs.replace(EXAMPLES["void"], epoch=self.outbox.epoch, seq=seq, voids=voids)),
            )
        )

    def read(self, seq, label="normal"):
        return self.silence.do(ReadingRequest(epoch=self.outbox.epoch, seq=seq, label=label))

    def release(self):
        for _ in range(self.site.settings.readings):
            assert self.read(self.add())
        assert self.silence.do(RELEASE)

    def events(self):
        return read_events(journal_path(self.home))


@pytest.fixture
def bench(tmp_path):
    bench = Bench(tmp_path)
    yield bench
    bench.silence.close()
    bench.outbox.close()


def test_a_new_site_is_silent_until_enough_was_read_and_someone_released_it(bench):
    assert not bench.silence.shown
    assert bench.silence.do(RELEASE) is None
    assert bench.read(bench.add())
    bench.restart()
    assert not bench.silence.shown
    assert bench.silence.do(RELEASE) is None, "one of two"
    assert bench.read(bench.add(), ELSE)
    assert not bench.silence.shown, "nobody has released it"
    assert bench.silence.do(RELEASE)
    assert bench.silence.shown
    bench.restart()
    assert bench.silence.shown
    assert bench.silence.do(RELEASE) is None, "asked again after a crash, it is no second release"
    assert [type(event).__name__ for event in bench.events()] == ["Silenced", "Reading", "Reading", "Released"]
    assert bench.outbox.last_seq() == 2


def test_with_no_readings_wanted_answers_are_shown_and_nothing_is_watched(tmp_path, caplog):
    bench = Bench(tmp_path, Site(Commissioning(readings=0, drift_once_in=1000), "b" * 64, OWN))
    for number in range(200):
        bench.add(typicality=0.9 if number < 100 else 0.01)
    assert bench.silence.shown
    assert bench.silence.do(RELEASE) is None
    assert bench.silence.do(SilenceRequest()) is None, "they would be shown all the same"
    assert "not shown" not in caplog.text
    assert bench.read(1) is None


def test_a_reading_counts_once_and_only_of_what_nobody_was_shown(bench):
    seq = bench.add()
    assert bench.read(seq + 1) is None, "there is no such outcome"
    assert bench.silence.do(ReadingRequest(epoch="9" * 32, seq=seq, label="normal")) is None
    assert bench.read(seq, "tuberculosis") is None, "no class of this network"
    assert bench.read(seq, UNDECIDED)
    assert bench.read(seq) is None, "the first reading counts"
    assert bench.read(bench.add(pixel_hash=f"{seq:064x}")), "the same picture under another seq is recorded"
    now = read_standing(bench.home)
    assert (len(now.compared), now.undecided) == (0, 1), "and does not count"
    bench.outbox.record(
        Entry(
            "f" * 64,
            "refusal",
            lambda number: encode(msgspec.structs.replace(EXAMPLES["refusal"], epoch=bench.outbox.epoch, seq=number)),
        )
    )
    assert bench.read(bench.outbox.last_seq()) is None
    assert bench.read(bench.add(shown=True)) is None


def test_a_test_film_is_read_by_nobody(bench):
    assert bench.read(bench.add(test=True)) is None
    assert bench.read(bench.add())
    assert len(read_standing(bench.home).compared) == 1


def test_a_film_that_was_taken_back_or_is_to_be_is_not_read(bench):
    bench.take_back(bench.add())
    assert bench.read(1) is None
    Requests(bench.home).void(bench.outbox.epoch, bench.add(), "wrong_patient")
    assert bench.read(3) is None


@pytest.mark.parametrize("kept", ["told", "killed before it was told", "only the centre can"])
def test_a_reading_of_what_was_taken_back_afterwards_counts_no_more(bench, kept):
    first = bench.add()
    assert bench.read(first)
    assert bench.read(bench.add(), UNDECIDED)
    again = bench.add(pixel_hash=f"{first:064x}")
    assert bench.read(again), "the film as it was corrected"
    assert len(read_standing(bench.home).compared) == 1, "one picture"
    if kept == "only the centre can":
        lose_outbox(bench)
        Requests(bench.home).keep_unmet(VoidRequest(epoch=bench.events()[0].epoch, voids=first, reason="corrected"))
    else:
        bench.take_back(first)
    bench.restart() if kept.startswith("killed") else bench.silence.note_taken_back()
    bench.restart()
    bench.silence.note_taken_back()
    now = read_standing(bench.home)
    assert [reading.seq for reading in now.compared] == [again]
    assert (now.undecided, len(now.given)) == (1, 3)
    assert sum(isinstance(event, Withdrawn) for event in bench.events()) == 1


def test_what_was_taken_back_releases_nothing_even_while_the_disk_is_full(bench, monkeypatch):
    for _ in range(2):
        assert bench.read(bench.add())
    bench.take_back(1)
    with full_disk(monkeypatch):
        bench.silence.note_taken_back()
        with pytest.raises(OSError, match="No space"):
            bench.silence.do(RELEASE)
    assert bench.silence.do(RELEASE) is None
    assert not bench.silence.shown


def test_the_reading_keeps_what_the_device_had_said(bench):
    assert bench.read(bench.add(quality=["unfamiliar"], probabilities={"normal": 0.2, "pneumonia": 0.8}, label="pneumonia"))
    found = bench.events()[-1]
    assert (found.answer, found.chance, found.barred) == ("pneumonia", 0.8, True)
    assert bench.read(bench.add(quality=["uid_reused"], abstained=True), "covid19")
    assert not bench.events()[-1].barred


def test_the_threshold_is_device_tomls_then_the_releases_then_the_bundles(bench):
    assert bench.silence.threshold is None
    for _ in range(2):
        bench.read(bench.add())
    assert bench.silence.do(ReleaseRequest(by="N", threshold=0.75)) is None, "not one of those that were compared"
    assert bench.silence.do(ReleaseRequest(by="N", threshold=0.7))
    assert bench.silence.threshold == 0.7
    bench.restart(fixed=0.55)
    assert bench.silence.threshold == 0.55
    bench.restart(fixed=None, bundle="c" * 64)
    assert bench.silence.threshold is None, "another network, another choice"


def test_a_fixed_threshold_leaves_none_to_choose(tmp_path):
    bench = Bench(tmp_path, Site(SITE.settings, SITE.bundle, OWN, fixed=0.6))
    for _ in range(2):
        bench.read(bench.add())
    assert bench.silence.do(ReleaseRequest(by="N", threshold=0.7)) is None
    assert bench.silence.do(RELEASE)
    assert bench.silence.threshold == 0.6


def test_another_bundle_and_a_person_put_it_back_and_the_count_begins_anew(bench):
    bench.release()
    bench.restart(bundle="c" * 64)
    assert not bench.silence.shown
    assert bench.events()[-1] == Silenced(why="model", bundle="c" * 64, epoch=bench.outbox.epoch, after=2)
    assert bench.read(1) is None
    assert bench.silence.do(RELEASE) is None
    bench.release()
    assert bench.silence.do(SilenceRequest())
    assert not bench.silence.shown
    assert bench.silence.do(SilenceRequest()), "asked again after a crash"
    assert [event.why for event in bench.events() if isinstance(event, Silenced)] == ["new", "model", "by_hand"]


def drift(bench, usual=150, strange=60):
    bench.release()
    rng = random.Random(1)
    for _ in range(usual):
        bench.add(typicality=round(rng.uniform(0.2, 1), 2))
    assert bench.silence.shown
    for _ in range(strange):
        bench.add(typicality=0.01)


def test_drift_puts_it_back_to_silent_and_is_watched_anew(bench):
    drift(bench)
    assert not bench.silence.shown
    last = bench.events()[-1]
    assert (last.why, last.epoch) == ("drift", bench.outbox.epoch)
    assert 152 < last.after < 212
    evidence = bench.silence._drift.evidence
    bench.restart()
    assert not bench.silence.shown
    assert bench.silence._drift.evidence == pytest.approx(evidence), "the watch is a function of the outcomes since"
    for _ in range(100):
        bench.add(typicality=0.01)
    assert bench.events()[-1] == last, "what it is used to now is no drift"
    assert sum(isinstance(event, Silenced) for event in bench.events()) == 2


def test_an_alarm_that_no_journal_heard_of_is_found_at_the_next_start(bench, tmp_path):
    drift(bench)
    events = bench.events()
    path = journal_path(tmp_path)
    path.write_bytes(b"\n".join(path.read_bytes().split(b"\n")[:-2]) + b"\n")  # as if killed before it was written
    assert isinstance(bench.events()[-1], Released)
    bench.restart()
    assert not bench.silence.shown
    assert bench.events()[-1].why == "drift"
    assert len(bench.events()) == len(events)


def test_an_intake_that_comes_again_is_watched_once(bench):
    for _ in range(5):
        bench.add(key=1, typicality=0.3)
    assert bench.silence._drift._seen == 1
    bench.restart()
    assert bench.silence._drift._seen == 1


@contextmanager
def full_disk(monkeypatch):
    def refuse(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", refuse)
        yield


def test_on_a_full_disk_it_falls_silent_at_once_and_says_so_later(bench, monkeypatch):
    bench.release()
    with full_disk(monkeypatch):
        with pytest.raises(OSError, match="No space"):
            bench.silence.do(SilenceRequest())
        assert not bench.silence.shown
        assert read_standing(bench.home).silent is False
    bench.silence.catch_up()
    assert read_standing(bench.home).began.why == "by_hand"


def test_on_a_full_disk_nothing_is_released_and_no_reading_is_taken(bench, monkeypatch):
    seq = bench.add()
    bench.read(bench.add())
    with full_disk(monkeypatch), pytest.raises(OSError, match="No space"):
        bench.read(seq)
    assert len(read_standing(bench.home).compared) == 1
    assert bench.read(seq), "it is asked again, since its request is still there"
    with full_disk(monkeypatch), pytest.raises(OSError, match="No space"):
        bench.silence.do(RELEASE)
    assert not bench.silence.shown
    assert bench.silence.do(RELEASE)


def test_a_damaged_journal_silences_a_released_device(bench, tmp_path):
    bench.release()
    path = journal_path(tmp_path)
    path.write_bytes(path.read_bytes().replace(b'"event":"release"', b'"event":"relaese"'))
    bench.restart()
    assert not bench.silence.shown
    assert [event.why for event in bench.events()] == ["damaged"]
    assert len(list(tmp_path.glob("*.damaged-1"))) == 1


def lose_outbox(bench):
    bench.silence.close()
    bench.outbox.close()
    for path in bench.home.glob("outbox*"):
        path.unlink()
    bench.__init__(bench.home, bench.site)


def test_a_new_outbox_keeps_the_release_and_its_films_are_asked_for_after_a_silence(bench):
    bench.release()
    lose_outbox(bench)
    assert bench.silence.shown
    bench.add()
    assert bench.silence._drift._seen == 1
    bench.silence.do(SilenceRequest())
    lose_outbox(bench)
    assert bench.read(bench.add()), "of another epoch than the silence"


def test_requests_of_every_kind_are_read_as_they_were_asked(tmp_path):
    requests = Requests(tmp_path)
    asked = [ReadingRequest(epoch="0" * 32, seq=1, label=UNDECIDED), ReleaseRequest(by="Ü", threshold=0.5), SilenceRequest()]
    for request in asked:
        requests.ask(request)
    assert {type(request) for _, request in requests.pending()} == {type(request) for request in asked}
    assert all(request in asked for _, request in requests.pending())
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"type": "release", "by": "a\nb"}, ReleaseRequest)
