"""Every intake ends in exactly one outcome, wherever the process stops in between."""

import errno
import json
import os
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.bundle import load_bundle
from edge.config import Device, Watch
from edge.contract.codec import decode_outcome
from edge.contract.messages import Failure, Refusal, Result, Void
from edge.decoder_protocol import NotReady, Ready
from edge.headers import NO_HEADERS, Headers
from edge.infer import MAX_TRIALS, Inference, Trials, do_requests
from edge.local import LocalStore
from edge.outbox import Outbox
from edge.outcomes import OutcomeWriter
from edge.preprocess import INPUT_SIDE, preprocess
from edge.pseudonym import SiteKey
from edge.requests import Requests
from edge.spool import Spool
from export.phantom import phantom

BUNDLE = replace(load_bundle(), gate=None)  # the pictures here are noise
DEVICE = Device(device="clinic-1", facility="Clinic", state="s", site_key="k", watch=Watch(folder="f"))


def ready(seed=0, headers=NO_HEADERS):
    pixels = np.random.default_rng(seed).integers(0, 256, (INPUT_SIDE, INPUT_SIDE), dtype=np.uint8)
    return Ready(pixels.tobytes(), f"{seed:064x}", headers, 1.0, 2.0)


class Scripted:
    """A decoder that answers by the content of the file."""

    def __init__(self):
        self.answers = {}

    def decode_while(self, path, work):
        return self.answers[path.read_bytes()], work()


class Bench:
    def __init__(self, home):
        self.home = home
        (home / "inbox").mkdir()
        self.spool = Spool(home / "state")
        self.decoder = Scripted()
        self.key = SiteKey(b"k" * 32)
        self.open()

    def use(self, bundle):
        self.close()
        self.open(bundle)

    def open(self, bundle=BUNDLE):
        self.outbox = Outbox(self.home / "outbox.db", "clinic-1")
        writer = OutcomeWriter(DEVICE, self.key, bundle.manifest, self.outbox.epoch)
        self.local = LocalStore(self.home / "state")
        self.inference = Inference(self.spool, self.decoder, bundle, self.outbox, writer, self.local, None)

    def close(self):
        self.outbox.close()

    def drop(self, name, content, answer):
        self.decoder.answers[content] = answer
        (self.home / "inbox" / name).write_bytes(content)
        return self.spool.admit(self.home / "inbox" / name)

    def outcomes(self):
        return [decode_outcome(row.payload) for row in self.outbox.unreceipted(0, 1000)]


@pytest.fixture
def bench(tmp_path):
    bench = Bench(tmp_path)
    yield bench
    bench.close()


def test_a_picture_becomes_a_result_and_leaves_the_spool(bench):
    intake = bench.drop("a.png", b"1", ready())
    assert bench.inference.process(intake) == 1
    (result,) = bench.outcomes()
    assert isinstance(result, Result)
    assert list(result.probabilities) == BUNDLE.manifest.classes
    assert sum(result.probabilities.values()) == pytest.approx(1, abs=1e-5)
    assert result.label == max(result.probabilities, key=result.probabilities.get)
    assert result.abstained == (max(result.probabilities.values()) < BUNDLE.manifest.threshold or bool(result.quality))
    assert result.model == BUNDLE.manifest.model_sha256
    assert {"decode", "preprocess", "classify", "total"} == set(result.timings_ms)
    assert bench.spool.pending() == []
    assert [path.read_bytes() for path in bench.spool.done.iterdir()] == [b"1"]


def test_bad_input_becomes_a_refusal_or_failure_is_kept_aside_and_the_next_goes_on(bench):
    for name, content, answer in (
        ("a", b"1", NotReady(True, "colour")),
        ("b", b"2", NotReady(False, "truncated")),
        ("c", b"3", ready()),
    ):
        bench.inference.process(bench.drop(name, content, answer))
    refusal, failure, result = bench.outcomes()
    assert (type(refusal), refusal.reasons) == (Refusal, ["colour"])
    assert (type(failure), failure.reasons) == (Failure, ["truncated"])
    assert isinstance(result, Result)
    assert sorted(path.read_bytes() for path in bench.spool.aside.iterdir()) == [b"1", b"2"]


def test_what_the_gate_refuses_becomes_a_refusal_with_its_reason(bench):
    bench.use(load_bundle())
    upright = preprocess(phantom(700, width=400, height=400))
    for name, content, picture, headers in (
        ("a", b"1", upright, NO_HEADERS),
        ("b", b"2", upright[::-1, ::-1].copy(), NO_HEADERS),
        ("c", b"3", upright, Headers(view="LATERAL", age_years=50)),
        ("d", b"4", upright, Headers(age_years=7)),
    ):
        answer = Ready(picture.tobytes(), f"{content[0]:064x}", headers, 1.0, 2.0)
        bench.inference.process(bench.drop(name, content, answer))
    result, *refusals = bench.outcomes()
    assert isinstance(result, Result)
    assert all(isinstance(refusal, Refusal) for refusal in refusals)
    assert [refusal.reasons for refusal in refusals] == [["upside_down"], ["lateral"], ["too_young"]]
    assert all(refusal.pixel_hash for refusal in refusals)
    assert (refusals[1].view, refusals[2].age_band) == ("LATERAL", "0-9")
    assert sorted(path.read_bytes() for path in bench.spool.aside.iterdir()) == [b"2", b"3", b"4"]
    assert bench.spool.pending() == []


def test_the_same_bytes_dropped_twice_on_purpose_are_two_intakes_with_one_pixel_hash(bench):
    for name in ("a.png", "b.png"):
        bench.inference.process(bench.drop(name, b"1", ready()))
    one, two = bench.outcomes()
    assert one.pixel_hash == two.pixel_hash
    assert one.source_key != two.source_key


def test_a_dicom_object_sent_again_has_one_outcome(bench):
    headers = Headers(sop_instance_uid="1.2.3")
    assert bench.inference.process(bench.drop("a.dcm", b"1", ready(1, headers))) == 1
    assert bench.inference.process(bench.drop("b.dcm", b"2", ready(1, headers))) == 1
    assert len(bench.outcomes()) == 1
    assert bench.spool.pending() == []
    assert bench.outbox.seq_of_files() == {"a.dcm": 1, "b.dcm": 1}


def test_two_pictures_that_claim_one_uid_have_two_outcomes(bench):
    headers = Headers(sop_instance_uid="1.2.3")
    for seed, content in ((1, b"1"), (2, b"2"), (2, b"2")):
        bench.inference.process(bench.drop(f"{seed}.dcm", content, ready(seed, headers)))
    one, two = bench.outcomes()
    assert "uid_reused" not in one.quality
    assert "uid_reused" in two.quality


@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from(["record", "settle", "after"])), min_size=1, max_size=6))
@settings(max_examples=40, deadline=None)
def test_wherever_the_process_dies_each_intake_ends_in_one_outcome(tmp_path_factory, deaths):
    bench = Bench(tmp_path_factory.mktemp("dies"))
    try:
        for number in range(5):
            bench.drop(f"{number}.png", str(number).encode(), ready(number))
        for number, moment in deaths:
            pending = bench.spool.pending()
            if number < len(pending):
                dies_at(bench, moment, pending[number])
                bench.close()
                bench.open()
        for intake in bench.spool.pending():
            bench.inference.process(intake)
        outcomes = bench.outcomes()
        assert [outcome.seq for outcome in outcomes] == [1, 2, 3, 4, 5]
        assert len({outcome.source_key for outcome in outcomes}) == 5
        assert len(list(bench.spool.done.iterdir())) == 5
    finally:
        bench.close()


def dies_at(bench, moment, intake):
    """Let a step raise, as if the process had ended there."""

    class Dead(Exception):
        pass

    def dead(*arguments, **named):
        raise Dead

    target, name = {"record": (bench.outbox, "record"), "settle": (bench.spool, "settle"), "after": (None, "")}[moment]
    if target is not None:
        setattr(target, name, dead)
    try:
        bench.inference.process(intake)
    except Dead:
        pass
    finally:
        if target is not None:
            delattr(target, name)


def test_an_intake_that_ends_the_process_each_time_is_given_up(bench, tmp_path):
    intake = bench.drop("a.png", b"1", ready())
    for trial in range(1, MAX_TRIALS + 2):
        assert trials(tmp_path, intake.id) == trial
    assert bench.inference.give_up(intake) == 1
    assert bench.outcomes()[0].reasons == ["internal_error"]
    assert [path.read_bytes() for path in bench.spool.aside.iterdir()] == [b"1"]
    assert trials(tmp_path, "another") == 1
    assert trials(tmp_path, intake.id) == 1


def test_one_that_cannot_be_read_to_its_end_is_given_up_all_the_same(bench, monkeypatch):
    def bad_sector(intake):
        raise OSError(errno.EIO, "Input/output error")

    first, second = bench.drop("a.png", b"1", ready()), bench.drop("b.png", b"2", ready(2))
    with monkeypatch.context() as patched:
        patched.setattr(bench.spool, "make_durable", bad_sector)
        with pytest.raises(OSError, match="Input/output"):
            bench.inference.process(first)  # the disk may recover; the supervisor tries again
        assert bench.inference.give_up(first) == 1
    assert bench.inference.process(second) == 2
    assert [path.read_bytes() for path in bench.spool.aside.iterdir()] == [b"1"]


def test_one_that_may_not_be_read_is_set_aside_with_a_reason(bench, monkeypatch):
    def forbidden(intake):
        raise PermissionError(errno.EACCES, "Permission denied")

    intake = bench.drop("a.png", b"1", NotReady(False, "not_readable"))
    monkeypatch.setattr(bench.spool, "make_durable", forbidden)
    assert bench.inference.process(intake) == 1
    assert bench.outcomes()[0].reasons == ["not_readable"]
    assert bench.spool.pending() == []


def trials(home, intake_id):
    """How a new process counts."""
    with closing(Trials(home / "in-hand")) as counted:
        return counted.begin(intake_id)


def test_a_file_name_that_is_no_text_is_recorded_like_any_other(bench):
    intake = bench.drop(os.fsdecode(b"\xff\xfe.png"), b"1", ready())
    assert bench.inference.process(intake) == 1
    assert bench.outbox.seq_of_files() == {"\\xff\\xfe.png": 1}


def test_nothing_that_names_a_patient_leaves(bench):
    headers = Headers(
        sop_instance_uid="1.2.3",
        study_instance_uid="9.8.7",
        patient_id="K-4711",
        exam_date="2026-01-31",
        age_years=47,
        sex="F",
        view="PA",
    )
    bench.inference.process(bench.drop("Jane Doe K-4711.dcm", b"1", ready(1, headers)))
    payload = bench.outbox.unreceipted(0, 1)[0].payload.decode()
    for secret in ("Jane", "Doe", "4711", "1.2.3", "9.8.7", ":47,", "47 "):
        assert secret not in payload
    fields = json.loads(payload)
    assert (fields["age_band"], fields["sex"], fields["view"], fields["exam_date"]) == ("40-49", "F", "PA", "2026-01-31")
    assert fields["patient"] == SiteKey(b"k" * 32).keyed("patient", "K-4711")
    assert fields["patient"] != SiteKey(b"x" * 32).keyed("patient", "K-4711")
    assert all("Doe" not in name for _, _, files in os.walk(bench.home / "state") for name in files)


def test_the_file_is_forced_to_the_disk_before_the_outcome_is_committed(bench, monkeypatch):
    order = []
    fsync, record = os.fsync, bench.outbox.record
    monkeypatch.setattr(os, "fsync", lambda handle: (order.append("fsync"), fsync(handle))[1])
    monkeypatch.setattr(bench.outbox, "record", lambda entry: (order.append("record"), record(entry))[1])
    bench.inference.process(bench.drop("a.png", b"1", ready()))
    assert order == ["fsync", "fsync", "record"], "the file, its folder, then the outcome"


def test_an_outcome_is_taken_back_once_however_often_it_is_asked(bench):
    intake = bench.drop("a.png", b"a", ready())
    seq = bench.inference.process(intake)
    requests = Requests(bench.home / "state")
    for _ in range(3):
        requests.void(bench.outbox.epoch, seq, "wrong_patient")
    requests.void("0" * 32, seq, "wrong_patient")
    requests.void(bench.outbox.epoch, 99, "wrong_patient")
    (bench.home / "state" / "requests" / "odd.json").write_text("{}")
    do_requests(bench.inference, requests)
    result, void = bench.outcomes()
    assert isinstance(result, Result)
    assert isinstance(void, Void)
    assert (void.voids, void.reasons) == (seq, ["wrong_patient"])
    assert bench.outbox.voided() == {(bench.outbox.epoch, seq)}
    assert requests.pending() == []


def test_a_name_stays_beside_the_outbox(bench):
    headers = Headers(patient_name="Canary^Name", patient_id="canary-id")
    intake = bench.drop("a.dcm", b"a", ready(headers=headers))
    bench.inference.process(intake)
    facts = bench.local.read(intake.id)
    assert (facts.patient_name, facts.patient_id) == ("Canary^Name", "canary-id")
    assert facts.heat is None or (max(facts.heat.values) == 255 and len(facts.heat.values) == facts.heat.rows * facts.heat.columns)
    stored = b"".join(path.read_bytes() for path in bench.home.glob("outbox.db*"))
    assert b"Canary" not in stored
    assert b"canary-id" not in stored


def test_a_disk_that_does_not_take_the_name_does_not_hold_up_the_outcome(bench, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(bench.local, "write", full)
    assert bench.inference.process(bench.drop("a.png", b"a", ready())) == 1
