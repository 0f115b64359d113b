"""What a process that decodes may hold, and that one film at a time is held by a board."""

import asyncio
import fcntl
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from edge.config import Decode
from edge.page.film import Films
from edge.pixels import decoder as parent
from edge.pixels.decoder import Decoder
from edge.pixels.decoder_protocol import NotReady, Ready
from edge.pixels.turn import turn
from tests.support.clinic import small_picture
from tests.support.dicom_files import dicom

SMALLEST = Decode(timeout_s=60.0, memory_mb=112)


def said(program, *arguments):
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()


TAKE = """
import sys
from edge.pixels.memory_limit import limit_memory, loading, require_memory
def fits(size):
    try:
        return len(bytes(size << 20)) > 0
    except MemoryError:
        return False
def may(size):
    try:
        require_memory(size << 20)
    except MemoryError:
        return False
    return True
if sys.argv[1] != "0":
    limit_memory(100 << 20)
print(fits(70), fits(100), may(70), may(100))
with loading():
    import numpy
print(fits(70), fits(100), may(70), may(100))
"""


def test_more_than_the_limit_is_refused_and_what_a_library_does_not_touch_is_not_counted():
    """OpenBLAS maps 32 MiB: counted, 70 would no longer fit after its import."""
    assert said(TAKE, 1) == ["True", "False"] * 4
    assert said(TAKE, 0) == ["True"] * 8


def anonymous_mib(pid):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


def test_a_small_board_keeps_nothing_of_a_film(tmp_path):
    grain = np.random.default_rng(1).integers(0, 4096, (500, 3000), dtype=np.uint16)
    deep = np.repeat(grain, 8, axis=0)
    films = [dicom(tmp_path / syntax, deep, bits=12, syntax=syntax) for syntax in (ExplicitVRLittleEndian, RLELossless)]
    decoder = Decoder(SMALLEST)
    try:
        for path in films * 2:
            assert isinstance(decoder.decode(path), (Ready, NotReady))
        time.sleep(0.2)  # it gives back after it has answered
        assert anonymous_mib(decoder.pid) < 45
    finally:
        decoder.close()


def test_a_decoder_that_is_ended_is_named_in_the_log_and_the_film_tried_again(tmp_path, caplog):
    decoder = Decoder(SMALLEST)
    try:
        path = small_picture(tmp_path / "a.png", 1)
        os.kill(decoder.pid, signal.SIGKILL)
        with caplog.at_level(logging.WARNING):
            assert isinstance(decoder.decode(path), Ready)
        assert [(record.event, "exit status -9" in record.getMessage()) for record in caplog.records] == [("decoder_ended", True)]
    finally:
        decoder.close()


@pytest.fixture
def taken(tmp_path):
    """The turn, held by somebody else until `release` is called."""
    lock = (tmp_path / "turn").open("a")
    fcntl.flock(lock, fcntl.LOCK_EX)
    yield lock.close
    lock.close()


def test_a_film_waits_until_the_page_has_drawn_one(tmp_path, taken):
    decoder = Decoder(SMALLEST, tmp_path / "turn")
    try:
        path = small_picture(tmp_path / "a.png", 1)
        began = time.monotonic()
        threading.Timer(0.5, taken).start()
        assert isinstance(decoder.decode(path), Ready)
        assert time.monotonic() - began >= 0.5
    finally:
        decoder.close()


@pytest.mark.usefixtures("taken")
def test_a_film_does_not_wait_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(parent, "_PATIENCE_S", 0.3)
    decoder = Decoder(SMALLEST, tmp_path / "turn")
    try:
        began = time.monotonic()
        assert isinstance(decoder.decode(small_picture(tmp_path / "a.png", 1)), Ready)
        assert 0.3 <= time.monotonic() - began < 20
    finally:
        decoder.close()


def test_the_page_draws_no_film_while_one_is_read(tmp_path, taken):
    Image.new("L", (300, 300), 99).save(tmp_path / "film.png")
    films = Films(SMALLEST, tmp_path / "turn")

    async def stays():
        return False

    async def drawn():
        drawing = asyncio.ensure_future(films.draw(tmp_path / "film.png", None, stays))
        done, _ = await asyncio.wait([drawing], timeout=3.0)
        assert not done
        taken()
        return await drawing

    assert asyncio.run(drawn()).startswith(b"\x89PNG")


def test_who_has_the_turn_leaves_it(tmp_path):
    with turn(tmp_path / "turn"):
        pass
    with turn(tmp_path / "turn", 0.0), (tmp_path / "turn").open() as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with turn(None):
        pass
