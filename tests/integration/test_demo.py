"""`make demo` as a newcomer runs it; what `make` adds is the installation."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from export.phantom import phantom
from tests.support.clinic import small_picture
from tests.support.processes import wait_for
from tests.unit.edge.test_decode import dicom

ROOT = Path(__file__).resolve().parents[2]


def start(log: Path, **settings: str) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "demo"],
            cwd=ROOT,
            env={**os.environ, **settings, "TMPDIR": str(log.parent)},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def left_running(log: Path) -> list[str]:
    """Processes whose command line speaks of this demonstration's folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                if str(log.parent) in command:
                    found.append(command)
    return found


@pytest.fixture
def mixed(tmp_path):
    folder = tmp_path / "pictures"
    (folder / "deeper").mkdir(parents=True)
    small_picture(folder / "a.png", 1, side=300)
    small_picture(folder / "deeper/a.png", 2, side=300)
    small_picture(folder / "b.jpg", 3, side=300)
    dicom(folder / "c.dcm", phantom(1, width=300, height=300))
    dicom(folder / "c again.dcm", phantom(1, width=300, height=300))
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (20, 20, 3), dtype=np.uint8).repeat(20, 0).repeat(20, 1)).save(folder / "photo.jpg")
    (folder / "notes.txt").write_text("not a picture")
    return folder


def test_a_folder_is_accounted_for_to_the_last_file(mixed, tmp_path):
    log = tmp_path / "demo.log"
    process = start(log, IMAGES=str(mixed), ONCE="1")
    assert process.wait(timeout=120) == 0, log.read_text()
    said = log.read_text()
    assert "7 of 7 accounted for in the centre's database." in said
    assert "refusal: colour" in said
    assert "failure: not_an_image" in said
    assert "1 of them carry the SOP Instance UID" in said
    assert "never the only basis of a decision" in said
    assert not list(tmp_path.glob("cxr-demo-*"))
    assert not left_running(log)


def test_it_stays_up_shows_its_page_and_ends_everything_when_interrupted(tmp_path):
    log = tmp_path / "demo.log"
    process = start(log, IMAGES="", ONCE="")
    try:
        wait_for(lambda: "drawn-0003.png" in log.read_text(), "drawn pictures arrive at the centre", 90)
        said = log.read_text()
        assert "means nothing" in said, "it says that the pictures are drawn"
        for name, content in (("Dashboard", b"demo-clinic"), ("The clinic's page", b'name="pin"')):
            address = re.search(rf"{name}: (http://127\.0\.0\.1:\d+/)", said)
            assert address is not None
            with urllib.request.urlopen(address[1], timeout=10) as page:
                assert content in page.read()
        assert process.poll() is None
        assert len(left_running(log)) >= 6
    finally:
        os.kill(process.pid, signal.SIGINT)
        code = process.wait(timeout=60)
    assert code == 0
    assert not left_running(log)


def test_nothing_is_left_when_it_is_killed(tmp_path):
    log = tmp_path / "demo.log"
    process = start(log, IMAGES="", ONCE="")
    wait_for(lambda: "Dashboard" in log.read_text(), "it is up", 60)
    process.kill()
    process.wait()
    wait_for(lambda: not left_running(log), "its processes end by themselves", 30)


@pytest.mark.parametrize(("images", "says"), [("/nowhere", "is no folder"), ("EMPTY", "There is no file in IMAGES=")])
def test_a_folder_that_gives_nothing_is_no_success(tmp_path, images, says):
    log = tmp_path / "demo.log"
    (tmp_path / "empty").mkdir()
    process = start(log, IMAGES=str(tmp_path / "empty") if images == "EMPTY" else images, ONCE="1")
    assert process.wait(timeout=60) != 0
    assert says in log.read_text()
