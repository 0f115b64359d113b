"""The whole device with a real broker and aggregator: what people and machines throw at it, and what it says."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge.contract.codec import decode_outcome
from edge.contract.reasons import AID
from edge.errors import OutboxError
from edge.unattended.lifecycle import is_running
from export.phantom import phantom
from tests.support.clinic import make_device, small_picture
from tests.support.mosquitto import loopback_mosquitto
from tests.support.processes import end, free_port, wait_for
from tests.unit.edge.test_decode import dicom


def edge(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edge.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **options)


def outcomes(device):
    if not (device.state / "outbox.db").exists():
        return {}
    try:
        outbox = device.outbox()
    except OutboxError:
        return {}  # it is only just being made
    try:
        seqs = outbox.seq_of_files()  # first: another outcome may come between the two
        payloads = {row["number"]: row["payload"] for row in outbox.listing(1000)}
        return {name: decode_outcome(payloads[seq]) for name, seq in seqs.items()}
    finally:
        outbox.close()


@pytest.fixture
def line(tmp_path):
    """A device, a broker and an aggregator that are running."""
    with loopback_mosquitto(tmp_path / "mosquitto") as broker:
        device = make_device(tmp_path / "device", broker.url, extra=["receipt_timeout_s = 1.0"])
        log = (tmp_path / "aggregator.log").open("wb")
        aggregator = subprocess.Popen(
            [sys.executable, "-m", "broker.cli", "aggregate", "--mqtt", broker.url, "--db", f"sqlite:///{tmp_path}/centre.db"],
            stdout=log,
            stderr=log,
        )
        device.start()
        yield device
        device.stop()
        end(aggregator)
        log.close()


def write_bad_inputs(folder: Path) -> dict[str, str]:
    """Write one file of each kind of bad input; return the reason that each should get."""
    good = small_picture(folder / "good.png", 1, side=300)
    whole = good.read_bytes()
    (folder / "empty.png").write_bytes(b"")
    (folder / "truncated.png").write_bytes(whole[: len(whole) // 2])
    (folder / "text.dcm").write_bytes(b"this is no picture\n" * 100)
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (20, 20, 3), dtype=np.uint8).repeat(20, 0).repeat(20, 1)).save(folder / "photo.jpg")
    dicom(folder / "report.dcm", None)
    with (folder / "huge.bin").open("wb") as file:
        file.write(whole)
        file.truncate(200 * 1024 * 1024)
    return {
        "empty.png": "empty_file",
        "truncated.png": "truncated",
        "text.dcm": "not_an_image",
        "photo.jpg": "colour",
        "report.dcm": "no_pixels",
        "huge.bin": "too_large",
    }


def test_bad_input_gets_a_reason_is_kept_and_everything_else_goes_on(line, tmp_path):
    box = tmp_path / "box"
    box.mkdir()
    reasons = write_bad_inputs(box)
    dicom(box / "film.dcm", phantom(5, width=300, height=300))
    for path in sorted(box.iterdir()):
        shutil.copy(path, line.inbox / f".{path.name}.part")
        os.rename(line.inbox / f".{path.name}.part", line.inbox / path.name)
    wait_for(lambda: len(outcomes(line)) == len(reasons) + 2, "every file has its outcome", 60)
    found = outcomes(line)
    assert {name: found[name].reasons for name in reasons} == {name: [reason] for name, reason in reasons.items()}
    assert type(found["good.png"]).__name__ == type(found["film.dcm"]).__name__ == "Result"
    assert len(list((line.state / "aside").iterdir())) == len(reasons), "nothing is deleted"
    wait_for(lambda: line.waiting() == 0, "all are receipted", 30)
    with sqlite3.connect(tmp_path / "centre.db") as db:
        assert db.execute("SELECT count(*) FROM outcomes").fetchone() == (len(reasons) + 2,)
        assert db.execute("SELECT count(*) FROM quarantine").fetchone() == (0,)
    said = edge("outbox", "--config", line.config, "--all").stdout
    assert "The picture is cut short" in said
    assert AID in said
    rows = [json.loads(row) for row in edge("outbox", "--config", line.config, "--all", "--json").stdout.splitlines()]
    assert {row["original_name"] for row in rows} == set(found)
    log = line.log.read_text()
    assert not [name for name in reasons if name in log], "names of files stay out of the log"


def test_a_planned_end_is_clean_and_leaves_nothing_running(line):
    wait_for(lambda: len(line.pids()) == 6, "all processes")
    pids = line.pids()
    assert line.stop() == 0
    assert not [name for name, pid in pids.items() if os.path.exists(f"/proc/{pid}")]
    line.start()
    wait_for(lambda: len(line.pids()) == 6, "it starts again")


def test_nothing_outlives_a_killed_supervisor(line):
    wait_for(lambda: len(line.pids()) == 6, "all processes")
    pids = line.pids()
    os.kill(pids["run"], signal.SIGKILL)
    line.process.wait()
    wait_for(lambda: not [pid for pid in pids.values() if os.path.exists(f"/proc/{pid}")], "the others end by themselves", 20)
    line.start()


def test_a_second_device_on_the_same_folder_is_refused(line):
    wait_for(lambda: len(line.pids()) == 6, "all processes")
    second = edge("run", "--config", line.config)
    assert second.returncode == 2
    assert "Another `cxr-edge run` already works on" in second.stderr


def test_without_a_broker_results_wait(tmp_path):
    device = make_device(tmp_path / "device", f"mqtt://127.0.0.1:{free_port()}")
    device.start()
    try:
        small_picture(device.inbox / "a.png", 1)
        wait_for(lambda: len(outcomes(device)) == 1, "the result is recorded", 30)
        wait_for(lambda: "cannot be reached" in device.log.read_text(), "the relay says why nothing is sent", 20)
        assert device.waiting() == 1
        assert "1 wait" in edge("outbox", "--config", device.config).stdout
    finally:
        device.stop()


def test_a_broker_that_accepts_and_says_nothing_does_not_hang_the_relay(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        device = make_device(tmp_path / "device", f"mqtt://127.0.0.1:{silent.getsockname()[1]}")
        accepted = []
        threading.Thread(target=lambda: accepted.append(silent.accept()[0]), daemon=True).start()
        device.start()
        try:
            wait_for(lambda: "did not answer" in device.log.read_text(), "it gives up waiting", 40)
        finally:
            for connection in accepted:
                connection.close()
            assert device.stop() == 0


@pytest.mark.parametrize("what", ["tampered", "missing"])
def test_a_broken_model_stops_answers_but_not_delivery_or_intake(tmp_path, what):
    device = make_device(tmp_path / "device", f"mqtt://127.0.0.1:{free_port()}")
    from edge.network.manifest import SHIPPED

    shutil.copytree(SHIPPED, tmp_path / "model")
    if what == "tampered":
        content = bytearray((tmp_path / "model/model.tflite").read_bytes())
        content[len(content) // 2] ^= 1
        (tmp_path / "model/model.tflite").write_bytes(content)
    else:
        (tmp_path / "model/manifest.json").unlink()
    device.config.write_text(device.config.read_text() + f'\n[model]\nbundle = "{tmp_path}/model"\n')
    device.start()
    try:
        small_picture(device.inbox / "a.png", 1)
        said = "SHA-256 differs" if what == "tampered" else "There is no model at"
        wait_for(lambda: said in device.log.read_text(), "it says what is wrong", 30)
        wait_for(lambda: len(list((device.state / "spool").glob("*"))) == 1, "the picture waits in the spool")
        assert "Traceback" not in device.log.read_text()
        assert edge("check", "--config", device.config).returncode == 1
    finally:
        device.stop()


def test_without_the_site_key_nothing_is_read_and_with_it_what_waits_is(tmp_path):
    device = make_device(tmp_path / "device", f"mqtt://127.0.0.1:{free_port()}")
    key = device.home / "site.key"
    key.rename(tmp_path / "paper")
    device.start()
    try:
        small_picture(device.inbox / "a.png", 1)
        said = f"typed from its paper: cxr-edge key restore --config {device.config}"
        wait_for(lambda: said in device.log.read_text(), "it says what is missing", 30)
        wait_for(lambda: len(list((device.state / "spool").glob("*"))) == 1, "the picture waits in the spool")
        assert not is_running(device.state, "infer"), "the page says that pictures are not read"
        assert not outcomes(device)
        (tmp_path / "paper").rename(key)
        wait_for(lambda: len(outcomes(device)) == 1, "it is read", 30)
        text = device.log.read_text()
        assert (text.count(said), "infer ended" in text) == (1, False)
        key.unlink()
    finally:
        assert device.stop() == 0
    # While it waits it ends as soon as it is told to.
    device.start()
    try:
        wait_for(lambda: device.log.read_text().count(said) == 2, "it waits again", 30)
    finally:
        began = time.monotonic()
        assert device.stop() == 0
    assert time.monotonic() - began < 15


def test_a_folder_that_cannot_be_emptied_is_told_and_others_go_on(tmp_path):
    device = make_device(tmp_path / "device", f"mqtt://127.0.0.1:{free_port()}")
    text = device.config.read_text().replace('folder = "inbox"', 'folder = "inbox"\nrescan_s = 0.2\nsettle_s = 0.1')
    device.config.write_text(text)
    small_picture(device.inbox / "a.png", 1)
    chattr = shutil.which("chattr")
    made = chattr and subprocess.run([chattr, "+i", str(device.inbox)], check=False, capture_output=True).returncode == 0
    if not made:
        os.chmod(device.inbox, 0o500)
        if os.getuid() == 0:
            pytest.skip("root writes everywhere, and this file system knows no immutable folders")
    try:
        device.start()
        wait_for(lambda: "cannot be taken in" in device.log.read_text(), "it says so", 20)
        assert device.log.read_text().count("cannot be taken in") == 1
    finally:
        if made:
            subprocess.run([chattr, "-i", str(device.inbox)], check=True)
        os.chmod(device.inbox, 0o700)
    try:
        wait_for(lambda: len(outcomes(device)) == 1, "once the folder is writable the file is taken", 30)
    finally:
        device.stop()


def test_classify_prints_one_object_a_file_and_fails_only_for_failures(tmp_path):
    reasons = write_bad_inputs(tmp_path)
    names = ["good.png", "photo.jpg"]
    done = edge("classify", "--json", *[tmp_path / name for name in names])
    assert done.returncode == 0
    good, photo = map(json.loads, done.stdout.splitlines())
    assert set(good) >= {"file", "status", "reasons", "probabilities", "label", "abstained", "model"}
    assert (good["status"], list(good["probabilities"])) == ("ok", ["normal", "pneumonia", "covid19"])
    assert set(good["reasons"]) <= {"unfamiliar", "undecided"}
    assert good["abstained"] or not good["reasons"]
    assert (photo["status"], photo["reasons"], photo["probabilities"]) == ("refused", ["colour"], {})
    done = edge("classify", "--json", *[tmp_path / name for name in reasons], tmp_path / "nowhere.png")
    assert done.returncode == 1
    found = {Path(row["file"]).name: row for row in map(json.loads, done.stdout.splitlines())}
    assert {name: found[name]["reasons"] for name in reasons} == {name: [reason] for name, reason in reasons.items()}
    assert found["nowhere.png"]["reasons"] == ["not_found"]
    spoken = edge("classify", tmp_path / "good.png", tmp_path / "photo.jpg")
    assert "This is a colour picture" in spoken.stdout
    assert "never the only basis of a decision" in spoken.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("run", "--config", "/nowhere.toml"), "cannot be read"),
        (("outbox", "--config", "/nowhere.toml"), "cannot be read"),
        (("classify", "--bundle", "/nowhere", "x.png"), "There is no model"),
    ],
)
def test_mistakes_on_the_command_line_are_one_sentence(arguments, says):
    done = edge(*arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr
