"""Every intake ends in exactly one outcome, wherever the process stops in between."""

import errno
import hashlib
import itertools
import json
import os
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.commissioning.journal import read_standing
from edge.commissioning.silence import Site, open_silence
from edge.config import Commissioning, Decode, Device, Watch
from edge.contract.codec import decode_outcome
from edge.contract.messages import Failure, Refusal, Result, Void
from edge.infer.inference import MAX_TRIALS, Inference
from edge.infer.local import LocalStore
from edge.infer.loop import do_requests, infer_forever
from edge.infer.outcomes import OutcomeWriter
from edge.infer.specimen import new_uid
from edge.infer.trials import Trials
from edge.intake.spool import Spool
from edge.network.bundle import load_bundle
from edge.outbox.file import damage_note
from edge.outbox.rebuild import outbox_of_infer
from edge.outbox.size import RESULTS_BYTES
from edge.outbox.writer import Outbox
from edge.pixels.decoder import Decoder
from edge.pixels.decoder_protocol import NotReady, Ready
from edge.pixels.headers import NO_HEADERS, Headers
from edge.pixels.preprocess import INPUT_SIDE, preprocess
from edge.privacy.pseudonym import SiteKey, chain
from edge.requests import ReadingRequest, ReleaseRequest, Requests
from export.phantom import phantom
from tests.support.dicom_files import dicom

BUNDLE = replace(load_bundle(), gate=None)  # the pictures here are noise
DEVICE = Device(device="clinic-1", facility="Clinic", state="s", site_key="k", watch=Watch(folder="f"))


def ready(seed=0, headers=NO_HEADERS):
    pixels = np.random.default_rng(seed).integers(0, 256, (INPUT_SIDE, INPUT_SIDE), dtype=np.uint8)
    return Ready(pixels.tobytes(), f"{seed:064x}", headers, 1.0, 2.0)


class Dead(Exception):
    """The process was killed."""


def dead(*arguments, **named):
    raise Dead


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
        site = Site(Commissioning(readings=1), bundle.manifest.model_sha256, bundle.manifest.threshold)
        self.silence = open_silence(self.home / "state", site, self.outbox)
        self.requests = Requests(self.home / "state")
        self.inference = Inference(
            self.spool, self.decoder, bundle, self.outbox, writer, self.local, self.silence, unmet=self.requests.keep_unmet
        )

    def close(self):
        self.silence.close()
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
    local = bench.local.read(intake.id).heat
    assert local is not None
    assert (result.heat_map.rows, result.heat_map.columns, result.heat_map.values) == (local.rows, local.columns, local.values)
    assert bench.spool.pending() == []
    assert [path.read_bytes() for path in bench.spool.done.iterdir()] == [b"1"]


def test_an_answer_is_recorded_and_not_shown_until_a_release_whose_threshold_then_decides(bench):
    for number in range(2):
        bench.inference.process(bench.drop(f"{number}.png", bytes([number]), ready(number)))
    requests = Requests(bench.home / "state")
    for request in (ReadingRequest(epoch=bench.outbox.epoch, seq=1, label="normal"), ReleaseRequest(by="N. N.", threshold=0.9)):
        requests.ask(request)
        do_requests(bench.inference, requests)
    bench.inference.process(bench.drop("2.png", b"2", ready(2)))
    results = bench.outcomes()
    assert [result.shown for result in results] == [False, False, True]
    own = BUNDLE.manifest.threshold
    assert [result.threshold for result in results] == [own, own, 0.9]
    assert requests.pending() == []


OF_A_B = Headers(sop_instance_uid="1.2.3", patient_name="A^B")


class Another:
    """A network that sees something else in the same picture."""

    gate = None

    def __init__(self, manifest):
        self.manifest = manifest

    def scores(self, pixels, headers):
        scores = BUNDLE.scores(pixels, headers)
        return replace(scores, heat=1 - scores.heat)

    def answer(self, scores, threshold=None):
        return BUNDLE.answer(scores, threshold)


@pytest.mark.parametrize("again", [ready(3, OF_A_B), NotReady(False, "decoder_timeout")])
def test_a_film_that_comes_again_keeps_the_heat_of_the_answer_that_stands(bench, again):
    """As from a machine of the network, whose objects have the same id each time."""
    name = f"{'ab' * 16}~film.dcm"

    def take(answer):
        bench.decoder.answers[b"1"] = answer
        (bench.spool.incoming / name).write_bytes(b"1")
        return bench.inference.process(bench.spool.intake(name))

    assert take(ready(3, OF_A_B)) == 1
    first = bench.local.read("ab" * 16)
    (result,) = bench.outcomes()
    assert first.heat.values == result.heat_map.values
    bench.use(Another(BUNDLE.manifest))
    take(again)
    assert bench.local.read("ab" * 16) == first
    (bench.home / "state/local" / ("ab" * 16)).unlink()  # as for room
    take(ready(3, OF_A_B))
    assert bench.local.read("ab" * 16) == replace_heat(first, None), "a name again, and no heat rather than that of another answer"


def replace_heat(facts, heat):
    return msgspec.structs.replace(facts, heat=heat)


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
        assert trials(tmp_path, intake) == trial
    assert bench.inference.give_up(intake) == 1
    assert bench.outcomes()[0].reasons == ["internal_error"]
    assert [path.read_bytes() for path in bench.spool.aside.iterdir()] == [b"1"]
    assert trials(tmp_path, replace(intake, id="another")) == 1
    assert trials(tmp_path, intake) == 1


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


def trials(home, intake):
    """How a new process counts."""
    with closing(Trials(home / "in-hand")) as counted:
        return counted.begin(intake)


class Until:
    def __init__(self, condition):
        self.is_set = condition


def loop(bench):
    """A process that ends once the spool is empty, or by what happens to it."""
    with closing(Trials(bench.home / "in-hand")) as counted:
        bench.inference._committed = counted.committed
        infer_forever(
            bench.inference, bench.spool, counted, Until(lambda: not bench.spool.pending()), Requests(bench.home), lambda: None
        )


def send(bench, content, answer, intake_id=None):
    """As a machine does over the network: the intake id is made from the object."""
    bench.decoder.answers[content] = answer
    part = bench.spool.new_part()
    part.write(content)
    return bench.spool.admit_part(part, intake_id or hashlib.sha256(content).hexdigest()[:32], "1.dcm")


def test_an_object_that_is_sent_again_and_again_is_not_given_up(bench):
    film = ready(1, Headers(sop_instance_uid="1.2.3", patient_name="Doe^Jane"))
    for _ in range(MAX_TRIALS + 3):
        intake = send(bench, b"film", film)
        loop(bench)
    assert [type(outcome).__name__ for outcome in bench.outcomes()] == ["Result"]
    assert bench.local.read(intake.id).patient_name == "Doe^Jane"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (NotReady(False, "decoder_memory"), ready(1, Headers(sop_instance_uid="1.2.3"))),
        (ready(1, Headers(sop_instance_uid="1.2.3")), NotReady(False, "decoder_memory")),
    ],
)
def test_what_is_committed_is_not_read_again_after_a_kill(bench, first, second, monkeypatch):
    send(bench, b"film", first)
    with monkeypatch.context() as killed:
        killed.setattr(bench.spool, "settle", dead)
        with pytest.raises(Dead):
            loop(bench)
    bench.decoder.answers[b"film"] = second
    loop(bench)
    (outcome,) = bench.outcomes()
    assert isinstance(outcome, Result) == isinstance(first, Ready)
    assert [path.read_bytes() for path in (bench.spool.done if isinstance(first, Ready) else bench.spool.aside).iterdir()] == [
        b"film"
    ]


def test_but_what_came_again_meanwhile_is(bench, monkeypatch):
    send(bench, b"film", ready(1, Headers(sop_instance_uid="1.2.3")), "ab" * 16)
    with monkeypatch.context() as killed:
        killed.setattr(bench.spool, "settle", dead)
        with pytest.raises(Dead):
            loop(bench)
    send(bench, b"another", ready(2, Headers(sop_instance_uid="1.2.3")), "ab" * 16)  # under the same uid, over the first
    loop(bench)
    _, second = bench.outcomes()
    assert "uid_reused" in second.quality


def film(seed=1, **headers):
    return ready(seed, Headers(**{"sop_instance_uid": "1.2.3", "patient_id": "K-1", "patient_name": "Wrong^Patient"} | headers))


def test_what_was_corrected_at_the_console_is_answered_anew_and_the_earlier_answer_taken_back(bench):
    send(bench, b"wrong", film())
    loop(bench)
    send(bench, b"right", film(patient_id="K-2", patient_name="Right^Patient"))
    loop(bench)
    first, void, second = bench.outcomes()
    assert (void.voids, void.reasons) == (first.seq, ["corrected"])
    assert "corrected" in second.quality
    assert first.patient != second.patient
    names = {bench.local.read(Path(row["place"]).stem).patient_name for row in bench.outbox.listing(9) if row["kind"] == "result"}
    assert names == {"Wrong^Patient", "Right^Patient"}, "each study keeps the name that it came with"
    assert {path.read_bytes() for path in bench.spool.done.iterdir()} == {b"wrong", b"right"}


def test_the_last_correction_is_the_one_that_is_valid_and_each_counts_once(bench):
    for content, number in ((b"1", "K-1"), (b"2", "K-2"), (b"3", "K-3"), (b"3", "K-3"), (b"2", "K-2")):
        send(bench, content, film(patient_id=number))
        loop(bench)
    results = [outcome for outcome in bench.outcomes() if isinstance(outcome, Result)]
    voids = [outcome.voids for outcome in bench.outcomes() if isinstance(outcome, Void)]
    assert len(results) == 3
    assert sorted(voids) == [results[0].seq, results[1].seq]


def standing(bench):
    """The results that nothing takes back."""
    outcomes, voided = bench.outcomes(), bench.outbox.voided()
    return [one for one in outcomes if isinstance(one, Result) and (one.epoch, one.seq) not in voided]


@pytest.mark.parametrize("way", [send, lambda bench, content, answer: bench.drop("film.dcm", content, answer)])
@given(st.lists(st.tuples(st.sampled_from(["K-1", "K-2", "K-3"]), st.booleans()), min_size=1, max_size=7))
@settings(max_examples=40, deadline=None)
def test_whatever_is_corrected_to_what_the_last_one_stands_alone(tmp_path_factory, way, sent):
    bench = Bench(tmp_path_factory.mktemp("corrected"))
    try:
        for number, (patient, restarts) in enumerate(sent):
            way(bench, str(number).encode(), film(patient_id=patient))
            loop(bench)
            if restarts:
                bench.close()
                bench.open()
            (stands,) = standing(bench)
            assert stands.patient == bench.key.keyed("patient", patient.lower())
        changes = sum(one[0] != other[0] for one, other in itertools.pairwise(sent))
        assert sum(isinstance(outcome, Result) for outcome in bench.outcomes()) == 1 + changes, "what says the same is a retry"
    finally:
        bench.close()


def test_a_late_retry_of_what_was_corrected_since_changes_nothing(bench):
    for content, number in ((b"1", "K-1"), (b"2", "K-2"), (b"1", "K-1")):
        send(bench, content, film(patient_id=number))
        loop(bench)
    assert [type(outcome).__name__ for outcome in bench.outcomes()] == ["Result", "Void", "Result"]


def rebuild(bench):
    """A new epoch, as after damage; what was recorded is saved."""
    bench.close()
    path = bench.home / "outbox.db"
    damage_note(path).touch()
    with outbox_of_infer(path, "clinic-1", RESULTS_BYTES, Until(lambda: False)):
        pass
    bench.open()


def test_what_was_answered_before_the_outbox_was_rebuilt_and_is_corrected_now_is_kept_for_the_centre_and_said(bench, caplog):
    send(bench, b"wrong", film())
    loop(bench)
    closed = bench.outbox.epoch
    rebuild(bench)
    for content, number in ((b"right", "K-2"), (b"righter", "K-3"), (b"righter", "K-3")):
        send(bench, content, film(patient_id=number))
        loop(bench)
    assert bench.requests.asked_voids() == {(closed, 1)}, "the page shows it as taken back"
    assert caplog.text.count("seq 1 of an earlier outbox was to be taken back") == 1
    _, second, void, third = bench.outcomes()
    assert void.voids == second.seq
    assert "corrected" in third.quality


def test_corrections_before_and_after_a_change_of_the_key_leave_one_answer_valid(bench):
    send(bench, b"1", film(patient_id="K-1"))
    loop(bench)
    for content, number, secret in ((b"2", "K-2", b"l" * 32), (b"3", "K-3", b"m" * 32)):
        bench.close()
        bench.key = chain([SiteKey(secret), *bench.key.all])
        bench.open()
        send(bench, content, film(patient_id=number))
        loop(bench)
    results = [outcome.seq for outcome in bench.outcomes() if isinstance(outcome, Result)]
    voids = [outcome.voids for outcome in bench.outcomes() if isinstance(outcome, Void)]
    assert len(results) == 3
    assert sorted(voids) == results[:2]


def test_a_child_whose_age_was_wrong_is_answered_once_it_is_corrected(bench):
    bench.use(replace(BUNDLE, gate=BUNDLE.gate))
    send(bench, b"4 years", film(age_years=4))
    loop(bench)
    send(bench, b"44 years", film(age_years=44))
    loop(bench)
    refusal, void, result = bench.outcomes()
    assert (refusal.reasons, void.voids, type(result)) == (["too_young"], refusal.seq, Result)


def test_another_name_alone_is_a_retry_that_says_the_name_better(bench):
    for name in ("Doe^J", "Doe^Jane"):
        send(bench, name.encode(), film(patient_name=name))
        loop(bench)
    (row,) = bench.outbox.listing(9)
    shown = bench.local.read(Path(row["place"]).stem)
    assert (shown.patient_name, shown.heat is not None) == ("Doe^Jane", True)


def test_equal_pixels_of_another_object_are_not_taken_back(bench):
    send(bench, b"1", film())
    loop(bench)
    part = bench.spool.new_part()
    part.write(b"other")
    bench.decoder.answers[b"other"] = film(sop_instance_uid="9.9.9", patient_id="K-9")
    bench.spool.admit_part(part, "cd" * 16, "2.dcm")
    loop(bench)
    send(bench, b"2", film(patient_id="K-2"))
    loop(bench)
    assert [outcome.voids for outcome in bench.outcomes() if isinstance(outcome, Void)] == [1]


@pytest.fixture
def decoding(bench):
    """A bench that reads real files."""
    with closing(Decoder(Decode())) as decoder:
        bench.inference._decoder = decoder
        yield bench


OF_ONE = {"PatientID": "K-1", "PatientName": "Doe^Jane", "StudyInstanceUID": "1.2.9"}


@pytest.mark.parametrize("way", ["dropped", "sent"])
@pytest.mark.parametrize("wrong", [{"NumberOfFrames": 4}, {"Modality": "CT"}, {"Rows": 0}])
def test_a_film_without_an_answer_keeps_its_patient_and_is_one_outcome_however_often_it_comes(decoding, wrong, way):
    content = dicom(decoding.home / "film", phantom(3, width=300, height=260), **OF_ONE, **wrong).read_bytes()
    for name in ("a.dcm", "b.dcm"):
        decoding.inference.process(decoding.drop(name, content, None) if way == "dropped" else send(decoding, content, None))
    (outcome,) = decoding.outcomes()
    assert isinstance(outcome, Refusal | Failure)
    keyed = decoding.key.keyed
    assert (outcome.patient, outcome.patient_missing, outcome.study) == (keyed("patient", "k-1"), None, keyed("study", "1.2.9"))
    (row,) = decoding.outbox.listing(9)
    assert decoding.local.read(Path(row["place"]).stem).patient_name == "Doe^Jane"


def test_a_film_that_could_not_be_read_is_answered_once_it_can(decoding):
    broken = dicom(decoding.home / "film", phantom(3, width=300, height=260), **OF_ONE, Rows=0).read_bytes()
    whole = dicom(decoding.home / "film", phantom(3, width=300, height=260), **OF_ONE).read_bytes()
    for content in (broken, whole, whole, broken, whole):
        decoding.inference.process(decoding.drop("a.dcm", content, None))
    failure, result = decoding.outcomes()
    assert (type(failure), type(result)) == (Failure, Result)
    assert not {"uid_reused", "corrected"} & set(result.quality), "there was no picture to compare it with"
    other = dicom(decoding.home / "film", phantom(4, width=300, height=260), **OF_ONE).read_bytes()
    decoding.inference.process(decoding.drop("a.dcm", other, None))
    assert "uid_reused" in decoding.outcomes()[-1].quality
    decoding.inference.process(decoding.drop("a.dcm", whole.replace(b"K-1", b"K-2"), None))
    assert [one.voids for one in decoding.outcomes() if isinstance(one, Void)] == [result.seq], "the failure stays"


def test_a_film_that_could_not_be_read_and_says_another_patient_is_an_outcome_of_its_own(bench):
    def broken(number, reason):
        return NotReady(False, reason, headers=Headers(sop_instance_uid="1.2.3", patient_id=number, patient_name=f"Name^{number}"))

    for content, number, reason in (
        (b"1", "K-1", "truncated"),
        (b"2", "K-2", "truncated"),
        (b"2", "K-2", "truncated"),
        (b"3", "K-1", "damaged"),
    ):
        send(bench, content, broken(number, reason))
        loop(bench)
    outcomes = bench.outcomes()
    assert [(type(one), one.patient) for one in outcomes] == [(Failure, bench.key.keyed("patient", f"k-{n}")) for n in (1, 2)]
    names = [bench.local.read(Path(row["place"]).stem).patient_name for row in bench.outbox.listing(9)]
    assert sorted(names) == ["Name^K-1", "Name^K-2"]


@pytest.mark.parametrize("moment", ["void", "record", "settle"])
def test_a_correction_survives_a_kill(bench, monkeypatch, moment):
    send(bench, b"wrong", film())
    loop(bench)
    send(bench, b"right", film(patient_id="K-2"))
    with monkeypatch.context() as killed:
        if moment == "settle":
            killed.setattr(bench.spool, "settle", dead)
        else:
            real, calls = bench.outbox.record, itertools.count()
            killed.setattr(bench.outbox, "record", lambda entry: dead() if next(calls) == (moment == "record") else real(entry))
        with pytest.raises(Dead):
            loop(bench)
    loop(bench)
    assert [type(outcome).__name__ for outcome in bench.outcomes()] == ["Result", "Void", "Result"]


def test_an_event_for_what_is_settled_makes_no_outcome(bench):
    intake = bench.drop("a.png", b"1", ready())
    loop(bench)
    with pytest.raises(FileNotFoundError):
        bench.inference.give_up(intake)
    assert len(bench.outcomes()) == 1


@pytest.mark.parametrize("name", ["film.ärz", "x.été", "Perez.José", "Okafor 12.03.1974", "film.😷", "film.jpg ", "..", "a.DCM"])
def test_what_stands_behind_the_last_dot_ends_nothing_and_is_in_no_name_of_a_file(bench, tmp_path, name):
    noted = Trials(tmp_path / "in-hand")
    bench.inference._committed = noted.committed
    given_up = bench.drop(name + "x", b"2", ready(2))
    intake = bench.drop(name if name != ".." else "x..", b"1", ready())
    assert (noted.begin(intake), bench.inference.process(intake)) == (1, 1)
    assert (noted.begin(given_up), bench.inference.give_up(given_up)) == (1, 2)
    assert noted.begin(replace(intake, id="ä" * 8, path=given_up.path)) == 1
    noted.close()
    assert not bench.spool.pending()
    kept = [path.name for folder in (bench.spool.done, bench.spool.aside) for path in folder.iterdir()]
    assert sorted(kept) == sorted([f"{intake.id}{'.dcm' if name == 'a.DCM' else ''}", given_up.id])


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
    assert fields["patient"] == SiteKey(b"k" * 32).keyed("patient", "k-4711")
    assert fields["patient"] != SiteKey(b"x" * 32).keyed("patient", "k-4711")
    assert fields["patient_missing"] is None
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


def test_what_was_asked_and_cannot_be_done_is_kept_and_said(bench, caplog):
    requests = Requests(bench.home / "state")
    requests.void("0" * 32, 7, "wrong_patient")  # before the outbox was rebuilt
    do_requests(bench.inference, requests)
    assert requests.pending() == []
    assert requests.asked_voids() == {("0" * 32, 7)}, "the page goes on to say so"
    assert "seq 7 of an earlier outbox" in caplog.text


def test_a_request_that_cannot_be_read_at_present_is_not_dropped(bench, monkeypatch, caplog):
    seq = bench.inference.process(bench.drop("a.png", b"a", ready()))
    requests = Requests(bench.home / "state")
    requests.void(bench.outbox.epoch, seq, "wrong_patient")

    def bad_sector(path):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_bytes", bad_sector)
        assert not do_requests(bench.inference, requests)
    assert "tried again" in caplog.text
    assert do_requests(bench.inference, requests)
    assert bench.outbox.voided() == {(bench.outbox.epoch, seq)}


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


def test_each_picture_of_a_long_queue_is_progress_and_the_end_comes_between_two(bench):
    for number in range(20):
        bench.drop(f"{number}.png", bytes([number]), ready(number))
    told = []

    class AfterSeven:
        def is_set(self):
            return bench.outbox.last_seq() >= 7

    with closing(Trials(bench.home / "in-hand")) as trials:
        requests = Requests(bench.home)
        infer_forever(
            bench.inference, bench.spool, trials, AfterSeven(), requests, lambda: None, lambda: told.append(bench.outbox.last_seq())
        )
    assert told == list(range(8)), "the scan, then each picture as it is recorded"
    assert len(bench.spool.pending()) == 13


def test_a_reading_of_a_film_that_is_taken_back_by_hand_or_corrected_counts_no_more(bench):
    send(bench, b"1", film(1))
    send(bench, b"2", film(2, sop_instance_uid="9.9.9"))
    loop(bench)
    for seq in (1, 2):
        assert bench.inference.do(ReadingRequest(epoch=bench.outbox.epoch, seq=seq, label="normal"))
    bench.requests.void(bench.outbox.epoch, 1, "wrong_patient")
    do_requests(bench.inference, bench.requests)
    assert [reading.seq for reading in read_standing(bench.home / "state").compared] == [2]
    send(bench, b"3", film(2, sop_instance_uid="9.9.9", patient_id="K-2"))
    loop(bench)
    assert read_standing(bench.home / "state").compared == ()
    assert bench.inference.do(ReleaseRequest(by="N. N.")) is None


def test_a_test_film_is_counted_nowhere_nor_is_what_takes_it_back(bench):
    counted = []
    bench.inference._count = lambda kind, reason, timings: counted.append(kind)
    uid = new_uid(bench.key)
    for name, answer in (("a", ready(1, Headers(sop_instance_uid=uid))), ("b", ready(2)), ("c", NotReady(True, "colour"))):
        bench.inference.process(bench.drop(name, name.encode(), answer))
    assert counted == ["result", "refusal"]
    for seq in (1, 2):
        bench.requests.void(bench.outbox.epoch, seq, "wrong_patient")
    do_requests(bench.inference, bench.requests)
    assert [(type(outcome).__name__, outcome.test) for outcome in bench.outcomes()] == [
        ("Result", True), ("Result", False), ("Refusal", False), ("Void", True), ("Void", False),
    ]  # fmt: skip


def test_what_is_counted_is_each_new_outcome_once(bench):
    counted = []
    bench.inference = Inference(
        bench.spool,
        bench.decoder,
        BUNDLE,
        bench.outbox,
        OutcomeWriter(DEVICE, bench.key, BUNDLE.manifest, bench.outbox.epoch),
        bench.local,
        bench.silence,
        count=lambda kind, reason, timings: counted.append((kind, reason, sorted(timings))),
    )
    sent_twice = ready(3, Headers(sop_instance_uid="1.2.3"))
    for name, answer in (("a", ready()), ("b", NotReady(True, "colour")), ("c", sent_twice), ("d", sent_twice)):
        bench.inference.process(bench.drop(name, name.encode(), answer))
    steps = ["classify", "decode", "preprocess", "total"]
    assert counted == [("result", "", steps), ("refusal", "colour", []), ("result", "", steps)]
