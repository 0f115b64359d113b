"""Nobody is there: real processes under a service manager of the test's own, told to end, made to hang; the technician's test."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
from pynetdicom import AE

from edge.config import load_config
from edge.contract.codec import decode_outcome
from edge.dicom.arrival import spool_name
from edge.unattended.tally import read_restarts
from tests.support.authority import Authority
from tests.support.centre import aggregator
from tests.support.clinic import make_device, small_picture
from tests.support.dicom import dicom_device, film
from tests.support.manager import Manager, managed, manager
from tests.support.mosquitto import fleet_mosquitto, loopback_mosquitto
from tests.support.processes import end, free_port, listens, wait_for
from tests.unit.edge.test_health import scraped

ROOT = Path(__file__).resolve().parents[2]
DICOM = '\n[dicom]\nport = {port}\nallow = ["XRAY1@127.0.0.1"]\n'


@pytest.fixture
def listening_manager():
    with manager() as made:
        yield made


@pytest.fixture
def device(tmp_path):
    """A device without a broker, with a listener."""
    return dicom_device(tmp_path / "device")[0]


def only_child(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def silent_for(listens_to: Manager, seconds: float) -> bool:
    """Whether no watchdog is fed in that time; what was on its way before does not count."""
    time.sleep(0.3)
    before = listens_to.heard("WATCHDOG=1")
    time.sleep(seconds)
    return listens_to.heard("WATCHDOG=1") == before


@pytest.mark.parametrize("name", ["watch", "infer", "relay", "dicom", "page"])
def test_each_process_serves_makes_progress_falls_silent_when_frozen_and_ends_when_told(device, listening_manager, name):
    with managed(name, device.config, device.log, listening_manager) as process:
        listening_manager.wait_for("READY=1")
        listening_manager.wait_for("WATCHDOG=1", 2)
        config = load_config(device.config)
        port = {"dicom": config.dicom and config.dicom.port, "page": config.page and config.page.port}.get(name)
        assert port is None or listens(port)
        process.send_signal(signal.SIGSTOP)
        assert silent_for(listening_manager, 1.7)
        process.send_signal(signal.SIGCONT)
        assert end(process) in (0, -signal.SIGTERM), device.log.read_text()
        assert listening_manager.heard("STOPPING=1") == 1
    limits = [int(line.partition("=")[2]) / 1e6 for line in listening_manager.lines() if line.startswith("WATCHDOG_USEC")]
    unit = (ROOT / f"firmware_configs/systemd/cxr-{name}.service").read_text()
    assert limits == [float(unit.partition("\nWatchdogSec=")[2].partition("\n")[0])], "the unit says what the process says"
    assert read_restarts(device.state) == {name: 0}


def test_a_decoder_that_hangs_is_legal_and_no_progress_and_then_things_go_on(device, listening_manager):
    device.config.write_text(device.config.read_text() + "\n[decode]\ntimeout_s = 4\n")
    with managed("infer", device.config, device.log, listening_manager) as process:
        listening_manager.wait_for("WATCHDOG=1")
        os.kill(only_child(process.pid), signal.SIGSTOP)
        (device.state / "spool").mkdir(exist_ok=True)
        small_picture(device.state / "spool" / f"{'a' * 32}~a.png", 1)
        time.sleep(0.7)  # until the picture is in hand
        assert silent_for(listening_manager, 2), "it waits, and does not claim to work"
        wait_for(lambda: device.waiting() == 1, "the picture has its outcome", 30)
        fed = listening_manager.heard("WATCHDOG=1")
        listening_manager.wait_for("WATCHDOG=1", fed + 2)
        assert process.poll() is None
    assert "WATCHDOG_USEC=68000000" in listening_manager.lines(), "the decoder's limit is in it"


def test_told_to_end_infer_finishes_the_picture_in_hand(device, listening_manager):
    with managed("infer", device.config, device.log, listening_manager) as process:
        listening_manager.wait_for("WATCHDOG=1")
        decoder = only_child(process.pid)
        os.kill(decoder, signal.SIGSTOP)
        for seed in (1, 2):
            small_picture(device.state / "spool" / f"{str(seed) * 32}~{seed}.png", seed)
        time.sleep(0.7)
        process.send_signal(signal.SIGTERM)
        listening_manager.wait_for("STOPPING=1")
        assert listening_manager.heard("EXTEND_TIMEOUT_USEC=120000000") == 1
        assert process.poll() is None
        os.kill(decoder, signal.SIGCONT)
        assert process.wait(30) == 0
    assert device.waiting() == 1, "what was in hand has its outcome, and nothing further was begun"
    assert len(list((device.state / "spool").iterdir())) == 1


def test_told_to_end_dicom_takes_the_object_that_is_arriving_and_no_further_association(device, listening_manager, tmp_path):
    config = load_config(device.config)
    assert config.dicom is not None
    place = ("127.0.0.1", config.dicom.port)
    path = film(tmp_path / "a.dcm", "1.2.826.0.9.1", side=2000)
    application = AE("XRAY1")
    from pydicom import dcmread

    data = dcmread(path)
    application.add_requested_context(data.SOPClassUID)
    with managed("dicom", device.config, device.log, listening_manager) as process, slow_road(place) as (road, go_on):
        listening_manager.wait_for("READY=1")
        assoc = application.associate("127.0.0.1", road, ae_title="CXR-EDGE")
        assert assoc.is_established
        answers = []
        sender = threading.Thread(target=lambda: answers.append(assoc.send_c_store(data)))
        sender.start()
        wait_for(lambda: list((device.state / "arriving").iterdir()), "the object is on its way")
        process.send_signal(signal.SIGTERM)
        listening_manager.wait_for("STOPPING=1")
        time.sleep(0.5)
        assert not listens(place[1]), "nobody else is let in"
        go_on.set()
        sender.join(20)
        assert process.wait(20) == 0
        assoc.abort()
    assert [answer.get("Status") for answer in answers] == [0x0000]
    (kept,) = (device.state / "spool").iterdir()
    assert kept.name.endswith(spool_name("1.2.826.0.9.1"))


@contextlib.contextmanager
def slow_road(place):
    """A relay of bytes that stops in the middle of an object until told to go on; return its port and what lets it."""
    go_on = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as entry:

        def carry():
            with contextlib.suppress(OSError):
                near, _ = entry.accept()
                with near, socket.create_connection(place) as far:
                    back = threading.Thread(target=pump, args=(far, near))
                    back.start()
                    count = 0
                    while piece := near.recv(16384):
                        count += len(piece)
                        if count > 1_000_000:
                            go_on.wait(20)
                        far.sendall(piece)
                    far.shutdown(socket.SHUT_RDWR)
                    back.join()

        carrier = threading.Thread(target=carry)
        carrier.start()
        yield entry.getsockname()[1], go_on
        carrier.join()


def pump(source, target):
    with contextlib.suppress(OSError):
        while piece := source.recv(16384):
            target.sendall(piece)
        target.shutdown(socket.SHUT_RDWR)


def test_told_to_end_the_page_takes_the_upload_that_is_arriving(device, listening_manager):
    page = load_config(device.config).page
    assert page is not None
    with managed("page", device.config, device.log, listening_manager) as process:
        listening_manager.wait_for("READY=1")
        host = f"127.0.0.1:{page.port}"
        pin = urllib.parse.urlencode({"pin": Path(page.pin).read_text().strip()})
        connection = http.client.HTTPConnection(host, timeout=30)
        connection.request("POST", "/login", pin, {"Origin": f"http://{host}", "Content-Type": "application/x-www-form-urlencoded"})
        response = connection.getresponse()
        response.read()
        cookie = (response.getheader("Set-Cookie") or "").partition(";")[0]
        connection.close()
        content = b"x" * 200_000
        connection = http.client.HTTPConnection(host, timeout=30)
        connection.putrequest("POST", "/uploads?name=a.png")
        for name, value in {"Origin": f"http://{host}", "Cookie": cookie, "Content-Length": str(len(content))}.items():
            connection.putheader(name, value)
        connection.endheaders(content[:100_000])
        wait_for(lambda: list((device.state / "uploads").iterdir()), "the upload is on its way")
        process.send_signal(signal.SIGTERM)
        listening_manager.wait_for("STOPPING=1")
        time.sleep(1)
        connection.send(content[100_000:])
        assert connection.getresponse().status == 201
        connection.close()
        process.wait(20)
    (kept,) = (device.state / "spool").iterdir()
    assert kept.stat().st_size == len(content)


def test_a_broker_that_does_not_answer_is_no_progress_and_does_not_keep_the_relay_from_ending(tmp_path, listening_manager):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        device = make_device(tmp_path / "device", f"mqtt://127.0.0.1:{silent.getsockname()[1]}")
        with managed("relay", device.config, device.log, listening_manager) as process:
            listening_manager.wait_for("READY=1")
            connection, _ = silent.accept()
            with connection:
                assert silent_for(listening_manager, 2)
                began = time.monotonic()
                assert end(process) == 0
                assert time.monotonic() - began < 5


def test_a_relay_with_nothing_to_send_makes_progress(tmp_path, listening_manager):
    with loopback_mosquitto(tmp_path) as broker:
        device = make_device(tmp_path / "device", broker.url)
        with managed("relay", device.config, device.log, listening_manager):
            wait_for(lambda: device.log.exists() and "connected to" in device.log.read_text(), "it is connected")
            fed = listening_manager.heard("WATCHDOG=1")
            listening_manager.wait_for("WATCHDOG=1", fed + 3, 10)


def checked(device, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edge.cli", "check", "--config", str(device.config), "--to-the-centre", *more]
    return subprocess.run(command, capture_output=True, text=True, timeout=150, check=False)


def stored(tmp_path: Path) -> list[tuple[str, bytes]]:
    with contextlib.closing(sqlite3.connect(tmp_path / "centre.db")) as db:
        return db.execute("SELECT kind, payload FROM outcomes").fetchall()


def counted(tmp_path: Path) -> tuple[int, ...]:
    with contextlib.closing(sqlite3.connect(tmp_path / "centre.db")) as db:
        return db.execute("SELECT sum(results), sum(abstained), sum(refusals), sum(failures), sum(voids) FROM streams").fetchone()


@pytest.fixture(scope="module")
def line(tmp_path_factory):
    """A running device with a listener and metrics, a broker and an aggregator."""
    tmp_path = tmp_path_factory.mktemp("line")
    with loopback_mosquitto(tmp_path) as broker, aggregator(tmp_path, broker.url, f"sqlite:///{tmp_path}/centre.db"):
        device = make_device(tmp_path / "device", broker.url, extra=["receipt_timeout_s = 1.0", "status_every_s = 0.5"])
        metrics = f"\n[metrics]\nport = {free_port()}\n"
        device.config.write_text(device.config.read_text() + DICOM.format(port=free_port()) + metrics)
        device.start()
        try:
            wait_for(lambda: len(device.pids()) == 7, "all processes", 60)
            wait_for(lambda: "connected to" in device.log.read_text(), "the relay is connected", 60)
            yield tmp_path, device
        finally:
            device.stop()


def test_a_test_film_goes_the_whole_way_by_dicom_and_counts_nowhere(line):
    tmp_path, device = line
    done = checked(device, "--timeout", "60")
    assert done.returncode == 0, done.stdout + done.stderr
    assert [text.partition("s: ")[2] for text in done.stdout.splitlines()[-4:]][::3] == [
        "a test film was sent to this device",
        "the centre has it, and its receipt is here",
    ]
    (row,) = stored(tmp_path)
    outcome = decode_outcome(row[1])
    assert outcome.test
    assert row[0] in ("result", "refusal")
    assert counted(tmp_path) == (0, 0, 0, 0, 0)
    log = device.log.read_text()
    assert "2.25." not in log, "not even the test film's number"
    assert not [name for name in ("TEST^FILM", "Canary") if name in log]


def test_another_film_counts_and_is_no_test_film(line, tmp_path):
    folder, device = line
    before = len(stored(folder))
    film(tmp_path / "patient.dcm", "2.25.123456789", side=300, drawn=True)
    os.rename(tmp_path / "patient.dcm", device.inbox / "patient.dcm")
    wait_for(lambda: len(stored(folder)) == before + 1, "it is at the centre", 60)
    assert not decode_outcome(stored(folder)[-1][1]).test
    assert sum(counted(folder)) >= 1


def test_the_metrics_of_a_running_device(line):
    _, device = line
    port = load_config(device.config).metrics.port
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
        found = scraped(answer.read().decode())
    assert found["cxr_edge_centre_connected", frozenset()] == 1
    assert found["cxr_edge_waiting_outcomes", frozenset()] == 0
    assert {dict(labels)["process"] for name, labels in found if name == "cxr_edge_restarts_total"} >= {"infer", "relay", "run"}
    recorded = sum(value for (name, _), value in found.items() if name == "cxr_edge_outcomes_total")
    outcomes = [decode_outcome(row["payload"]) for row in device.outbox().listing(100)]
    assert recorded == sum(not outcome.test for outcome in outcomes), "of test films nothing is counted"
    assert found["cxr_edge_receipts_total", frozenset()] == len(outcomes)


def test_a_killed_process_is_started_again_alone_and_the_line_goes_on(line):
    _, device = line
    before = device.pids()
    os.kill(before["infer"], signal.SIGKILL)
    wait_for(lambda: device.pids().get("infer", before["infer"]) != before["infer"], "infer runs again")
    assert {name: pid for name, pid in device.pids().items() if name not in ("infer", "decoder")} == {
        name: pid for name, pid in before.items() if name not in ("infer", "decoder")
    }
    assert checked(device, "--timeout", "60").returncode == 0
    assert read_restarts(device.state)["infer"] >= 1
    assert "event=restart" in (device.state / "log/run.log").read_text()


def stuck(device, seconds: int = 6) -> str:
    done = checked(device, "--timeout", str(seconds))
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout.splitlines()[-1]


def test_without_a_broker_the_technician_is_told_where_it_is_stuck(tmp_path):
    device = make_device(tmp_path / "device", f"mqtt://127.0.0.1:{free_port()}")
    assert "`cxr-edge watch` does not run" in stuck(device, 1)
    next(device.inbox.iterdir()).unlink()
    device.start()
    try:
        wait_for(lambda: len(device.pids()) == 6, "all processes")
        said = stuck(device)
        assert said.startswith("STUCK")
        assert "cannot be reached" in said
        assert "waits in the outbox" in said
        frozen = device.pids()["infer"]
        os.kill(frozen, signal.SIGSTOP)
        assert "is not read" in stuck(device, 2)
        os.kill(frozen, signal.SIGCONT)
    finally:
        device.stop()


def test_without_infer_or_relay_the_film_waits_in_spool_or_outbox(tmp_path, listening_manager):
    device = make_device(tmp_path / "device", f"mqtt://127.0.0.1:{free_port()}")
    with managed("watch", device.config, device.log, listening_manager):
        listening_manager.wait_for("READY=1")
        assert "`cxr-edge infer` does not run" in stuck(device, 2)
        with managed("infer", device.config, device.log, listening_manager):
            assert "`cxr-edge relay` does not run" in stuck(device, 6)


def test_with_a_certificate_that_the_centre_does_not_know_the_technician_is_told(tmp_path):
    for name in ("ca", "other", "fleet"):
        (tmp_path / name).mkdir()
    authority, stranger = Authority(tmp_path / "ca"), Authority(tmp_path / "other")
    identity = stranger.client("clinic-1")
    with fleet_mosquitto(tmp_path / "fleet", authority) as broker:
        files = {"ca": authority.ca, "certificate": identity.cert, "private_key": identity.key}
        extra = [f'{name} = "{path}"' for name, path in files.items()]
        device = make_device(tmp_path / "device", f"mqtts://127.0.0.1:{broker.port}", extra=extra)
        device.start()
        try:
            wait_for(lambda: len(device.pids()) == 6, "all processes")
            said = stuck(device, 8)
            assert "certificates of this device" in said
            assert "aggregator" not in said
        finally:
            device.stop()


def test_without_an_aggregator_it_is_the_centre_that_does_not_answer(tmp_path):
    with loopback_mosquitto(tmp_path) as broker:
        device = make_device(tmp_path / "device", broker.url)
        device.start()
        try:
            wait_for(lambda: len(device.pids()) == 6, "all processes")
            assert "aggregator does not answer" in stuck(device, 8)
        finally:
            device.stop()
