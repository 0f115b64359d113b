"""Answers in real archives: Orthanc and DCMTK's storescp, one that refuses, one that is away, and one that is killed for."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from pynetdicom import AE, evt

from edge.commands.check import check_device
from edge.config import Pacs, load_config
from edge.contract.messages import Refusal, Result
from edge.pacs.cursor import read_place
from edge.pacs.storing import SOP_CLASS, Away, NotTaken, associated, store
from edge.requests import Requests
from tests.support.authority import Authority
from tests.support.clinic import Device
from tests.support.dicom import film
from tests.support.orthanc import TITLE, orthanc
from tests.support.pacs import Answers, pacs_device, telling
from tests.support.processes import find_program, free_port, running, wait_for, wait_for_port

NAME = "Müller^Jürgen"


def told(device: Device, answers: Answers) -> int:
    place = read_place(device.state)
    return 0 if place is None else place.through.get(answers.outbox.epoch, 0)


def pacs_of(device: Device):
    return next(finding for finding in check_device(load_config(device.config)) if finding.subject == "PACS")


@contextlib.contextmanager
def archive(folder: Path, port: int, *options: object) -> Iterator[Path]:
    """DCMTK's archive: every object is a file, and one that comes twice replaces itself."""
    folder.mkdir(exist_ok=True)
    log = folder.with_suffix(".log")
    command = [find_program("storescp", "dcmtk"), "-aet", TITLE, "-od", folder, *options, port]
    with running(list(map(str, command)), log) as process:
        wait_for_port(port, process, log)
        yield folder


@contextlib.contextmanager
def scripted(port: int, status, kinds=("picture", "report"), *, of_event=False) -> Iterator[list[str]]:
    """An archive that answers to each object what `status(data set)` says, or `status(event)`; yields the UIDs that it was sent."""
    seen: list[str] = []

    def store(event):
        seen.append(str(event.request.AffectedSOPInstanceUID))
        return status(event if of_event else event.dataset)

    application = AE(TITLE)
    application.add_supported_context("1.2.840.10008.1.1")
    for kind in kinds:
        application.add_supported_context(SOP_CLASS[kind])
    handlers = [(evt.EVT_C_STORE, store), (evt.EVT_C_ECHO, lambda event: 0)]
    server = application.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers)
    try:
        yield seen
    finally:
        server.shutdown()


@pytest.mark.timeout(240)
def test_the_whole_way_from_the_archive_and_back(tmp_path):
    """Orthanc sends a film to the device, and finds its answers in the study; one is taken back."""
    listen, back = free_port(), free_port()
    device = pacs_device(tmp_path / "device", back, "[dicom]", f"port = {listen}", f'allow = ["{TITLE}@127.0.0.1:{back}"]')
    path = film(tmp_path / "a.dcm", "1.2.826.0.9.1", side=300, drawn=True)
    data = pydicom.dcmread(path)
    data.SpecificCharacterSet, data.PatientName, data.AccessionNumber = "ISO_IR 100", NAME, "A-17"
    data.SeriesInstanceUID = "1.2.3.4.1"
    data.save_as(path)
    with orthanc(tmp_path / "orthanc", listen, back) as server:
        device.start()
        try:
            wait_for(lambda: listens_for_echo(server), "the listener runs", 60)
            kept = server.add(path)
            assert server.call("/modalities/device/store", {"Resources": [kept], "Synchronous": True})["FailedInstancesCount"] == 0
            wait_for(lambda: len(series(server)) == 3, "answers in the study", 90)
            (study,) = server.call("/studies?expand")
            assert study["PatientMainDicomTags"]["PatientName"] == NAME
            assert study["PatientMainDicomTags"]["PatientID"] == "MRN-778"
            assert study["MainDicomTags"]["AccessionNumber"] == "A-17"
            assert study["MainDicomTags"]["StudyInstanceUID"] == "1.2.3.4"
            assert set(series(server)) == {"CR", "OT", "SR"}
            with contextlib.closing(device.outbox()) as outbox:
                Requests(device.state).void(outbox.epoch, 1, "wrong_patient")
            wait_for(lambda: len(series(server)["SR"]) == 2, "the withdrawal", 60)
            flags = [server.call(f"/instances/{one}/simplified-tags") for one in series(server)["SR"]]
            assert {tags["PreliminaryFlag"] for tags in flags} == {"PRELIMINARY"}
            assert sum("PredecessorDocumentsSequence" in tags for tags in flags) == 1
            log = device.log.read_text()
            assert not [word for word in ("Müller", "MRN-778", "1.2.826", "1.2.3.4", "A-17") if word in log]
        finally:
            device.stop()


def listens_for_echo(server) -> bool:
    with contextlib.suppress(OSError):
        server.call("/modalities/device/echo", {})
        return True
    return False


def series(server) -> dict[str, list[str]]:
    """Return the instances of each series by modality."""
    found = server.call("/series?expand")
    return {one["MainDicomTags"]["Modality"]: one["Instances"] for one in found}


RESULTS = 16
KILLS = 14


@pytest.mark.timeout(240)
def test_whatever_is_killed_when_nothing_is_missing_and_nothing_is_there_twice(tmp_path):
    port = free_port()
    device = pacs_device(tmp_path / "device", port)
    answers = Answers(device)
    path = film(tmp_path / "a.dcm", "1.2.826.0.9.1", side=120)
    kinds = [(Result, Refusal)[number % 4 == 3] for number in range(RESULTS)]
    for kind in kinds:
        answers.add(kind, path)
    rng = random.Random(3)
    with orthanc(tmp_path / "orthanc", free_port(), port) as server:
        for number in range(KILLS):
            goal = told(device, answers) + number % 2
            with telling(device) as process:
                # Every other one falls soon after one was told, between an object and the note that it was sent, the rest anywhere.
                wait_for(lambda goal=goal: told(device, answers) >= goal, "one more is told", 60)
                time.sleep(rng.uniform(0, 0.25 if number % 2 else 1.0))
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
                assert told(device, answers) < RESULTS, "all were told before it was killed often enough"
        with telling(device):
            wait_for(lambda: told(device, answers) == RESULTS, "all are told", 60)
        found = server.call("/instances?expand")
    objects = {(int(one["MainDicomTags"]["InstanceNumber"]), one["ParentSeries"]) for one in found}
    assert len(objects) == len(found) == RESULTS + kinds.count(Result), (
        "a picture and a report of each result, a report of each refusal"
    )
    assert {number for number, _ in objects} == set(range(1, RESULTS + 1))


def test_an_archive_that_is_away_gets_all_when_it_is_back_by_tls(tmp_path):
    authority = Authority(tmp_path / "tls", "authority")
    own, other = authority.client("device"), authority.server("pacs")
    port = free_port()
    lines = [f'certificate = "{own.cert}"', f'private_key = "{own.key}"', f'ca = "{authority.ca}"']
    device = pacs_device(tmp_path / "device", port, *lines)
    answers = Answers(device)
    path = film(tmp_path / "a.dcm", "1.2.826.0.9.1", side=120)
    answers.add(Result, path)
    with telling(device):
        wait_for(lambda: "is not told at present" in device.log.read_text(), "it says so", 30)
        answers.add(Refusal, path)
    with (
        archive(tmp_path / "archive", port, "+tls", other.key, other.cert, "+cf", authority.ca) as folder,
        telling(device),
    ):
        wait_for(lambda: told(device, answers) == 2, "all are told", 40)
        assert len(list(folder.iterdir())) == 3
        assert pacs_of(device).text.endswith("takes picture and report, TLS")
    plain = device.config.read_text().replace(lines[0], "").replace(lines[1], "").replace(lines[2], "")
    device.config.write_text(plain)
    with archive(tmp_path / "archive", port, "+tls", other.key, other.cert, "+cf", authority.ca):
        assert not pacs_of(device).ok


@pytest.mark.timeout(120)
def test_one_that_is_refused_holds_up_nobody_and_one_that_is_known_is_no_refusal(tmp_path):
    port = free_port()
    device = pacs_device(tmp_path / "device", port)
    answers = Answers(device)
    path = film(tmp_path / "a.dcm", "1.2.826.0.9.1", side=120)
    for _ in range(3):
        answers.add(Result, path)

    def status(data):
        if data.Modality == "OT":
            return {1: 0xB000, 2: 0xC000, 3: 0x0111}[int(data.InstanceNumber)]
        return 0

    with scripted(port, status) as seen, telling(device):
        wait_for(lambda: told(device, answers) == 3, "all are told", 60)
    place = read_place(device.state)
    assert place is not None
    assert place.refused == 1
    assert len(seen) == 2 + 3 * 2 + 2
    assert "0xC000" in device.log.read_text()
    with scripted(port, lambda data: 0):
        assert "1 objects were refused" in pacs_of(device).text


@pytest.mark.parametrize(
    ("status", "means"),
    [
        (0x0000, None),
        (0x0111, None),  # it has it
        (0xB000, None),
        (0xB007, None),
        (0xA700, Away),
        (0xA7FF, Away),
        (0xA900, NotTaken),
        (0xC000, NotTaken),
        (0x0122, NotTaken),
        (0xC001, NotTaken),
    ],
)
def test_what_each_answer_of_an_archive_means(tmp_path, status, means):
    port = free_port()
    link = Pacs(address="127.0.0.1", called_ae_title=TITLE, port=port)
    data = pydicom.dcmread(film(tmp_path / "a.dcm", "1.2.826.0.9.1"))
    data.SOPClassUID = SOP_CLASS["picture"]
    with scripted(port, lambda _: status, kinds=("picture",)), associated(link, ("picture", "report")) as association:
        with pytest.raises(means) if means else contextlib.nullcontext():
            store(association, "picture", data)
        with pytest.raises(NotTaken, match="takes no objects of the kind"):
            store(association, "report", data)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("modality", ["OT", "SR"])
def test_one_over_which_the_archive_breaks_off_holds_up_neither_the_others_nor_its_own_other_object(tmp_path, modality):
    port = free_port()
    device = pacs_device(tmp_path / "device", port)
    answers = Answers(device)
    path = film(tmp_path / "a.dcm", "1.2.826.0.9.1", side=120)
    for _ in range(3):
        answers.add(Result, path)
    taken = set()

    def status(event):
        data = event.dataset
        if (data.Modality, int(data.InstanceNumber)) == (modality, 2):
            event.assoc.abort(block=False)
        else:
            taken.add((data.Modality, int(data.InstanceNumber)))
        return 0

    with scripted(port, status, of_event=True), telling(device):
        wait_for(lambda: told(device, answers) == 3, "the others are told", 60)
    assert taken == {("OT", 1), ("SR", 1), ("OT", 2), ("SR", 2), ("OT", 3), ("SR", 3)} - {(modality, 2)}
    place = read_place(device.state)
    assert place is not None
    assert [(one.seq, one.objects) for one in place.put_off] == [(2, 1)]
    assert "it is put off" in device.log.read_text()
    with archive(tmp_path / "archive", port) as folder, telling(device):
        wait_for(lambda: not read_place(device.state).put_off, "it is tried again", 60)
    assert len(list(folder.iterdir())) == 2


def test_check_says_what_is_wrong_with_the_archive(tmp_path):
    port = free_port()
    device = pacs_device(tmp_path / "device", port)
    assert "cannot be reached" in pacs_of(device).text
    assert not pacs_of(device).fatal
    with scripted(port, lambda data: 0, kinds=("picture",)):
        assert "takes no report" in pacs_of(device).text
        text = device.config.read_text().replace(f'called_ae_title = "{TITLE}"', f'called_ae_title = "{TITLE}"\nreport = false')
        device.config.write_text(text)
        assert pacs_of(device).ok
    with socket.create_server(("127.0.0.1", port)):
        device.config.write_text(text + "\nsilent_s = 1.0\n")
        assert not pacs_of(device).ok, "somebody else listens there"
