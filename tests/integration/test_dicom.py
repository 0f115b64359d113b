"""The DICOM listener with real peers: DCMTK, Orthanc and pynetdicom send, processes are killed, disks fill up."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import threading
import time

import pydicom
import pytest
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    ExplicitVRLittleEndian,
    RLELossless,
    SecondaryCaptureImageStorage,
)
from pynetdicom import AE

from edge.contract.codec import decode_outcome
from edge.dicom.arrival import OUT_OF_RESOURCES, Admission, Arrival, spool_name
from edge.intake.spool import LEAST_FREE, Spool, free_bytes
from tests.support.authority import Authority
from tests.support.dicom import MACHINE, PATIENT, dcmtk, dicom_device, film, listening
from tests.support.orthanc import TITLE, orthanc
from tests.support.processes import end, find_program, free_port, wait_for

NAMES_A_PATIENT = (*PATIENT.split("^"), "MRN-778", "18151210")


@pytest.fixture
def device_and_port(tmp_path):
    return dicom_device(tmp_path / "device")


def held(device):
    return {intake.original_name: intake for intake in Spool(device.state).pending()}


def test_echo_and_every_kind_of_film_from_dcmtk(device_and_port, tmp_path):
    device, port = device_and_port
    kinds = (
        ComputedRadiographyImageStorage,
        DigitalXRayImageStorageForPresentation,
        DigitalXRayImageStorageForProcessing,
        SecondaryCaptureImageStorage,
    )
    paths = [film(tmp_path / f"{number}.dcm", f"1.2.826.0.2.{number}", sop_class=kind) for number, kind in enumerate(kinds)]
    compressed = pydicom.dcmread(film(tmp_path / "rle.dcm", "1.2.826.0.2.9"))
    compressed.compress(RLELossless, generate_instance_uid=False)
    compressed.save_as(tmp_path / "rle.dcm")
    with listening(device, port):
        assert dcmtk("echoscu", port).returncode == 0
        sent = dcmtk("storescu", port, "-R", *paths)
        assert sent.returncode == 0, sent.stderr
        assert dcmtk("storescu", port, "-xr", tmp_path / "rle.dcm").returncode == 0
    found = held(device)
    assert set(found) == {spool_name(f"1.2.826.0.2.{number}") for number in (0, 1, 2, 3, 9)}
    assert pydicom.dcmread(found[spool_name("1.2.826.0.2.9")].path).file_meta.TransferSyntaxUID == RLELossless
    for path in paths:
        read = pydicom.dcmread(path)
        assert pydicom.dcmread(found[spool_name(read.SOPInstanceUID)].path).PixelData == read.PixelData
    log = device.log.read_text()
    assert not [word for word in (*NAMES_A_PATIENT, "1.2.826") if word in log]


def test_an_object_that_is_sent_again_is_one_intake(device_and_port, tmp_path):
    device, port = device_and_port
    path = film(tmp_path / "a.dcm", "1.2.826.0.3.1")
    with listening(device, port):
        for _ in range(3):
            assert dcmtk("storescu", port, path).returncode == 0
    assert len(held(device)) == 1


def test_who_is_not_in_allow_is_rejected_and_named_in_the_log(device_and_port, tmp_path):
    device, port = device_and_port
    with listening(device, port):
        refused = dcmtk("storescu", port, film(tmp_path / "a.dcm", "1.2.826.0.3.1"), title="SOMEBODY")
        assert refused.returncode != 0
        assert "Calling AE Title Not Recognized" in refused.stderr + refused.stdout
        assert "an association of SOMEBODY at 127.0.0.1 was rejected" in device.log.read_text()
    assert not held(device)


def test_a_film_of_18_mb_costs_next_to_no_memory(device_and_port, tmp_path):
    device, port = device_and_port
    path = film(tmp_path / "a.dcm", "1.2.826.0.3.1", side=4250)
    with listening(device, port) as process:
        assert dcmtk("storescu", port, film(tmp_path / "small.dcm", "1.2.826.0.3.2")).returncode == 0
        before = peak_kib(process.pid)
        assert dcmtk("storescu", port, path).returncode == 0
        assert peak_kib(process.pid) - before < 6 * 1024
    assert held(device)[spool_name("1.2.826.0.3.1")].path.stat().st_size > 18_000_000


def peak_kib(pid):
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))


def test_over_tls_with_a_certificate_and_not_without(tmp_path):
    authority = Authority(tmp_path / "ca")
    own, machine = authority.server("device"), authority.client("machine")
    stranger = Authority(tmp_path / "other", "another authority").client("machine")
    lines = [f'certificate = "{own.cert}"', f'private_key = "{own.key}"', f'ca = "{authority.ca}"']
    device, port = dicom_device(tmp_path / "device", lines)
    path = film(tmp_path / "a.dcm", "1.2.826.0.3.1")
    with listening(device, port), socket.create_connection(("127.0.0.1", port)):  # one that never begins to speak TLS
        for identity, taken in ((stranger, False), (machine, True)):
            tls = ["+tls", identity.key, identity.cert, "+cf", authority.ca]
            assert (dcmtk("storescu", port, *tls, path).returncode == 0) is taken
        assert dcmtk("storescu", port, "+tla", "+cf", authority.ca, path).returncode != 0, "it shows no certificate"
        assert dcmtk("storescu", port, path).returncode != 0
        assert "TLS failed" in device.log.read_text()
    assert len(held(device)) == 1


def test_a_full_disk_is_told_and_the_next_object_is_taken_once_there_is_room(tmp_path):
    if os.getuid() != 0:
        pytest.skip("only root may mount a small file system")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={LEAST_FREE + 3 * 2**20}", "none", disk], check=True)
    try:
        device, port = dicom_device(tmp_path / "device")
        text = device.config.read_text().replace('state = "state"', f'state = "{disk}/state"')
        device.config.write_text(text + "\n[decode]\nmax_file_mb = 1\n")
        paths = [film(tmp_path / f"{number}.dcm", f"1.2.826.0.4.{number}", side=900, seed=number) for number in range(6)]
        with listening(device, port):
            taken = [path for path in paths if dcmtk("storescu", port, path).returncode == 0]
            assert taken
            wait_for(lambda: dcmtk("storescu", port, paths[0]).returncode != 0, "the lack of room is noticed")
            assert "refused with 0xA700: there is no room left" in device.log.read_text()
            filler = disk / "filler"
            filler.write_bytes(bytes(free_bytes(disk) - 2**20))
            arrival = Arrival(Admission(Spool(disk / "state"), 10**8, lambda: True), "1.2", "1.2.3", ExplicitVRLittleEndian)
            for _ in range(40):
                arrival.write(bytes(100_000))
            assert arrival.finish() == OUT_OF_RESOURCES, "the disk itself is full"
            assert not list((disk / "state/arriving").iterdir())
            filler.unlink()
            for intake in Spool(disk / "state").pending():
                intake.path.unlink()
            wait_for(lambda: dcmtk("storescu", port, paths[5]).returncode == 0, "room is noticed")
    finally:
        subprocess.run(["umount", disk], check=True)


def test_orthanc_sends_asks_for_commitment_and_is_told(tmp_path):
    back = free_port()
    device, port = dicom_device(tmp_path / "device", allow=[f"{TITLE}@127.0.0.1:{back}"])
    with listening(device, port), orthanc(tmp_path / "orthanc", port, back) as server:
        kept, other = (server.add(film(tmp_path / f"{number}.dcm", f"1.2.826.0.5.{number}", side=300)) for number in (1, 2))
        sent = server.call("/modalities/device/store", {"Resources": [kept], "Synchronous": True})
        assert sent["FailedInstancesCount"] == 0
        assert set(held(device)) == {spool_name("1.2.826.0.5.1")}

        asked = server.call("/modalities/device/storage-commitment", {"Resources": [kept, other]})["ID"]

        def report():
            return server.call(f"/storage-commitment/{asked}")

        wait_for(lambda: report()["Status"] != "Pending", "the report has come", 30)
        assert [item["SOPInstanceUID"] for item in report()["Success"]] == ["1.2.826.0.5.1"]
        assert [(item["SOPInstanceUID"], item["FailureReason"]) for item in report()["Failures"]] == [("1.2.826.0.5.2", 0x0112)]


def test_a_request_for_commitment_survives_a_kill(tmp_path):
    back = free_port()
    device, port = dicom_device(tmp_path / "device", allow=[f"{TITLE}@127.0.0.1:{back}"])
    with orthanc(tmp_path / "orthanc", port, back) as server:
        kept = server.add(film(tmp_path / "1.dcm", "1.2.826.0.5.1"))
        with listening(device, port) as process:
            server.call("/modalities/device/store", {"Resources": [kept], "Synchronous": True})
            asked = server.call("/modalities/device/storage-commitment", {"Resources": [kept]})["ID"]
            process.kill()
            process.wait()
        if server.call(f"/storage-commitment/{asked}")["Status"] == "Pending":  # else it was faster than the kill
            assert len(list((device.state / "commitments").iterdir())) == 1
        with listening(device, port):
            wait_for(lambda: server.call(f"/storage-commitment/{asked}")["Status"] == "Success", "the report has come", 40)


def test_sigterm_finishes_what_is_being_received_even_with_silent_peers_about(device_and_port, tmp_path):
    device, port = device_and_port
    with listening(device, port) as process, socket.create_connection(("127.0.0.1", port)) as silent:
        silent.sendall(b"\x01")
        idle = AE(MACHINE)
        idle.add_requested_context(ComputedRadiographyImageStorage)
        assoc = idle.associate("127.0.0.1", port, ae_title="CXR-EDGE")
        assert assoc.is_established
        began = time.monotonic()
        assert end(process, signal.SIGTERM, 10) == 0
        assert time.monotonic() - began < 10
        assoc.abort()
    with listening(device, port):
        assert dcmtk("echoscu", port).returncode == 0


OBJECTS = 300
KILLS = 8


@pytest.mark.timeout(240)
def test_what_was_acknowledged_is_there_whatever_was_killed_when(tmp_path):
    """A machine sends small objects, each until it is told that it was taken, while the listener is killed again and again."""
    device, port = dicom_device(tmp_path / "device")
    rng = random.Random(7)
    uids = {
        str(film(tmp_path / f"{number}.dcm", f"1.2.826.0.6.{number}", side=200)): f"1.2.826.0.6.{number}"
        for number in range(OBJECTS)
    }
    told: set[str] = set()

    def send_all():
        while len(told) < OBJECTS:
            waiting = [path for path, uid in uids.items() if uid not in told]
            command = [find_program("storescu", "dcmtk"), "-v", "-aet", MACHINE, "-aec", "CXR-EDGE", "127.0.0.1", str(port)]
            with subprocess.Popen([*command, *waiting], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as machine:
                path = ""
                for line in machine.stdout:
                    path = line.partition("Sending file: ")[2].strip() or path
                    if "Received Store Response (Success)" in line:
                        told.add(uids[path])
            time.sleep(0.1)  # it was killed; the next one needs a moment to start

    sender = threading.Thread(target=send_all, daemon=True)
    sender.start()
    for _ in range(KILLS):
        with listening(device, port) as process:
            goal = len(told) + rng.randrange(1, 20)
            wait_for(lambda goal=goal: len(told) >= goal, "it takes objects")
            process.kill()
            process.wait()
            assert len(told) < OBJECTS, "all were sent before it was killed often enough"
            assert not {spool_name(uid) for uid in list(told)} - set(held(device))
    with listening(device, port):
        sender.join(60)
        assert not list((device.state / "arriving").iterdir()), "what was half received is removed at the next start"
    assert len(told) == OBJECTS
    found = held(device)
    assert set(found) == {spool_name(uid) for uid in told}
    assert len(Spool(device.state).pending()) == OBJECTS, "each is there once"
    assert all(pydicom.dcmread(found[spool_name(uid)].path).SOPInstanceUID == uid for uid in told)


def test_the_whole_device_makes_one_outcome_of_an_object_however_often_it_comes(tmp_path):
    device, port = dicom_device(tmp_path / "device")
    path = film(tmp_path / "a.dcm", "1.2.826.0.7.1", side=300, drawn=True)
    changed = film(tmp_path / "b.dcm", "1.2.826.0.7.1", side=300, seed=2, drawn=True)
    device.start()
    try:
        wait_for(lambda: dcmtk("echoscu", port).returncode == 0, "the listener runs", 30)
        for _ in range(2):
            assert dcmtk("storescu", port, path).returncode == 0
        wait_for(lambda: device.waiting() == 1, "its outcome", 60)
        assert dcmtk("storescu", port, path).returncode == 0
        assert dcmtk("storescu", port, changed).returncode == 0
        wait_for(lambda: device.waiting() == 2, "one for the other picture", 60)
        outbox = device.outbox()
        outcomes = [decode_outcome(row["payload"]) for row in outbox.listing(10)]
        outbox.close()
        assert sorted("uid_reused" in outcome.quality for outcome in outcomes) == [False, True]
        log = device.log.read_text()
        assert not [word for word in (*NAMES_A_PATIENT, "1.2.826") if word in log]
    finally:
        device.stop()
