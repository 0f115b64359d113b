"""The decoding process may hang, crash or outgrow its limits, and each time it costs one picture."""

import contextlib
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge.classify_files import classify_files, to_json, to_text
from edge.config import Decode
from edge.decoder import Decoder
from edge.decoder_protocol import NotReady, Ready
from edge.preprocess import INPUT_SIDE, preprocess
from tests.support.clinic import small_picture


@pytest.fixture(params=["forked", "spawned"])
def decoder(request):
    """Both ways of starting the child; a second thread makes fork unsafe, so the other way is taken."""
    done = threading.Event()
    if request.param == "spawned":
        threading.Thread(target=done.wait, daemon=True).start()
    decoder = Decoder(Decode(timeout_s=2.0, memory_mb=512))
    yield decoder
    decoder.close()
    done.set()


def test_what_comes_back_is_the_networks_input(decoder, tmp_path):
    path = small_picture(tmp_path / "a.png", 1)
    answer = decoder.decode(path)
    assert isinstance(answer, Ready)
    expected = preprocess(np.asarray(Image.open(path)))
    assert np.array_equal(np.frombuffer(answer.pixels, np.uint8).reshape(INPUT_SIDE, INPUT_SIDE), expected)


def test_equal_pictures_have_equal_digests_and_others_do_not(decoder, tmp_path):
    first = decoder.decode(small_picture(tmp_path / "a.png", 1))
    Image.open(tmp_path / "a.png").save(tmp_path / "b.tif")
    again = decoder.decode(tmp_path / "b.tif")
    other = decoder.decode(small_picture(tmp_path / "c.png", 2))
    assert first.pixel_digest == again.pixel_digest != other.pixel_digest


def test_bad_input_has_a_reason_and_the_next_picture_is_read(decoder, tmp_path):
    (tmp_path / "bad").write_bytes(b"no picture")
    assert decoder.decode(tmp_path / "bad") == NotReady(False, "not_an_image")
    assert isinstance(decoder.decode(small_picture(tmp_path / "a.png", 1)), Ready)
    with pytest.raises(FileNotFoundError):
        decoder.decode(tmp_path / "gone")
    assert isinstance(decoder.decode(tmp_path / "a.png"), Ready)


def test_a_file_name_need_not_be_text(decoder, tmp_path):
    odd = tmp_path / os.fsdecode(b"\xff\xfe\n.png")
    assert isinstance(decoder.decode(small_picture(odd, 1)), Ready)
    odd.write_bytes(b"no image")
    readings = list(classify_files([odd, tmp_path / "gone", tmp_path], decoder, None, None))
    assert [(reading.file.rpartition("/")[2], reading.status, reading.reasons) for reading in readings] == [
        ("\\xff\\xfe\n.png", "failed", ["not_an_image"]),
        ("gone", "failed", ["not_found"]),
        (tmp_path.name, "failed", ["folder"]),
    ]
    assert to_text(readings[0]).startswith(f"{tmp_path}/\\xff\\xfe\\n.png: failed - ")
    assert all(to_json(reading) for reading in readings)


def test_one_that_hangs_is_stopped(decoder, tmp_path):
    pid = decoder.pid
    os.mkfifo(tmp_path / "hangs")  # opening it for reading waits for a writer that never comes
    began = time.monotonic()
    assert decoder.decode(tmp_path / "hangs").reason in {"decoder_timeout", "empty_file"}
    path = small_picture(tmp_path / "a.png", 1)
    os.kill(decoder.pid, signal.SIGSTOP)
    assert decoder.decode(path).reason == "decoder_timeout"
    assert time.monotonic() - began < 10
    assert decoder.pid != pid
    assert isinstance(decoder.decode(path), Ready)


def test_one_that_was_killed_between_pictures_costs_nothing(decoder, tmp_path):
    path = small_picture(tmp_path / "a.png", 1)
    for _ in range(3):
        os.kill(decoder.pid, signal.SIGKILL)
        assert isinstance(decoder.decode(path), Ready)


def test_a_picture_that_ends_the_process_every_time_gets_a_reason(decoder, tmp_path):
    path = small_picture(tmp_path / "a.png", 1)
    done = threading.Event()

    def killer():
        while not done.is_set():
            with contextlib.suppress(ProcessLookupError):
                os.kill(decoder.pid, signal.SIGSEGV)
            time.sleep(0.001)

    thread = threading.Thread(target=killer)
    thread.start()
    try:
        assert decoder.decode(path).reason == "decoder_crashed"
    finally:
        done.set()
        thread.join()
    assert isinstance(decoder.decode(path), Ready)


def test_work_is_done_meanwhile_and_its_failure_does_not_leave_an_answer_behind(decoder, tmp_path):
    first, second = small_picture(tmp_path / "a.png", 1), small_picture(tmp_path / "b.png", 2)
    expected = decoder.decode(second)
    answer, done = decoder.decode_while(first, lambda: 7)
    assert isinstance(answer, Ready)
    assert done == 7

    def fail():
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        decoder.decode_while(first, fail)
    assert decoder.decode(second).pixel_digest == expected.pixel_digest


def test_memory_is_limited(decoder, tmp_path):
    Image.fromarray(np.zeros((26000, 26000), np.uint8)).save(tmp_path / "huge.png")
    greedy = Decoder(Decode(memory_mb=300, max_megapixels=1000, timeout_s=60))
    try:
        assert greedy.decode(tmp_path / "huge.png").reason == "decoder_memory"
        assert isinstance(greedy.decode(small_picture(tmp_path / "a.png", 1)), Ready)
    finally:
        greedy.close()


def test_cpu_time_is_limited_even_if_nobody_waits(tmp_path):
    """When the parent is gone, a child that computes for ever ends by itself."""
    decoder = Decoder(Decode(timeout_s=1.0))
    decoder.decode(small_picture(tmp_path / "a.png", 1))
    lines = Path(f"/proc/{decoder.pid}/limits").read_text().splitlines()
    limits = next(line for line in lines if "cpu time" in line).split()
    assert int(limits[3]) <= 4
    decoder.close()


def test_it_ends_with_its_parent(tmp_path):
    decoder = Decoder(Decode())
    pid = decoder.pid
    decoder.close()
    assert not os.path.exists(f"/proc/{pid}")
