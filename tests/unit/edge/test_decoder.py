"""The decoding process may hang, crash or outgrow its limits, and each time it costs one picture."""

import contextlib
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.uid import (
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from edge.commands.classify_files import classify_files, to_json, to_text
from edge.config import Decode
from edge.contract.reasons import REASONS
from edge.pixels.decoder import Decoder
from edge.pixels.decoder_protocol import NotReady, Ready
from edge.pixels.dicom_stored import join_fragments
from edge.pixels.preprocess import INPUT_SIDE, preprocess
from export.phantom import phantom
from tests.support.clinic import small_picture
from tests.support.dicom_files import LOSSLESS, LOSSY, UNCOMPRESSED, dicom, replace_pixels


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


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_a_large_film_of_16_bits_is_read_in_the_memory_of_a_small_board(suffix, tmp_path):
    small = Image.fromarray(phantom(1, width=400, height=500))
    values = np.asarray(small.resize((4000, 5000), Image.Resampling.BICUBIC)).astype(np.uint16) * 257
    Image.fromarray(values).save(tmp_path / f"film{suffix}", **({"compress_level": 1} if suffix == ".png" else {}))
    decoder = Decoder(Decode(timeout_s=30.0, memory_mb=112))
    try:
        assert isinstance(decoder.decode(tmp_path / f"film{suffix}"), Ready)
    finally:
        decoder.close()


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLosslessSV1], ids=lambda syntax: syntax.name.split(" (")[0])
def test_a_film_too_large_for_the_memory_is_not_called_damaged(syntax, tmp_path):
    dicom(tmp_path / "film.dcm", np.zeros((5000, 4000), np.uint16), bits=12, syntax=syntax)
    decoder = Decoder(Decode(timeout_s=30.0, memory_mb=112))
    try:
        assert decoder.decode(tmp_path / "film.dcm").reason == "decoder_memory"
    finally:
        decoder.close()


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


def film(path, syntax, side=200):
    frame = phantom(4, width=side, height=side)
    if syntax in (None, "PNG", "JPEG", "TIFF"):
        Image.fromarray(frame).save(path, syntax)
        return path
    return dicom(
        path,
        frame if syntax == JPEGBaseline8Bit else frame.astype(np.uint16) << 4,
        bits=8 if syntax == JPEGBaseline8Bit else 12,
        syntax=syntax,
    )


@pytest.fixture
def child():
    decoder = Decoder(Decode(timeout_s=5.0, memory_mb=512))
    yield decoder
    decoder.close()


def outcome(answer):
    """An answer's reason; the picture's content where it has one."""
    if isinstance(answer, Ready):
        return "ready"
    assert answer.reason in REASONS
    return answer.reason


@pytest.mark.parametrize("syntax", ["PNG", "JPEG", "TIFF", *UNCOMPRESSED, *LOSSLESS, *LOSSY], ids=str)
def test_damage_of_every_kind_of_file_costs_that_file_alone(syntax, child, tmp_path):
    good = film(tmp_path / "good", syntax)
    expected = child.decode(good)
    assert isinstance(expected, Ready)
    whole = good.read_bytes()
    header = whole.find(b"\xff\xd8\xff") if b"\xff\xd8\xff" in whole else max(whole.find(b"\xff\x4f\xff\x51"), 0)
    rng = np.random.default_rng(list(str(syntax).encode()))
    outcomes = []
    for number in range(24):
        content = bytearray(whole)
        for _ in range(1 + number % 3):
            # Every second one hits the compressed picture's own header, where a change matters most.
            place = rng.integers(0, len(content)) if number % 2 else rng.integers(header, min(header + 400, len(content)))
            content[place] ^= 1 << rng.integers(8)
        (tmp_path / "bad").write_bytes(content)
        outcomes.append(outcome(child.decode(tmp_path / "bad")))
    for share in (0.01, 0.3, 0.7, 0.99):
        (tmp_path / "bad").write_bytes(whole[: int(share * len(whole))])
        outcomes.append(outcome(child.decode(tmp_path / "bad")))
        assert outcomes[-1] != "ready"
    assert len(set(outcomes)) > 1
    assert child.decode(good).pixel_digest == expected.pixel_digest


def bomb(path, syntax):
    """A small file whose DICOM header and compressed picture both say 30000 x 30000."""
    data = pydicom.dcmread(film(path, syntax))
    if syntax == RLELossless:
        runs = bytes([129, 255]) * (30000 * 30000 // 128)
        header = np.zeros(16, "<u4")
        header[:3] = 2, 64, 64 + len(runs)
        replace_pixels(data, header.tobytes() + runs + runs, syntax)
    else:
        content, size = bytearray(join_fragments(data.PixelData)), (30000).to_bytes(4, "big")
        if syntax == JPEG2000Lossless:
            content[8:16] = size * 2
            content[24:32] = size * 2  # one tile, else ten thousand small ones are asked for
        else:
            frame = next(at for at in range(len(content)) if content[at] == 0xFF and content[at + 1] in (0xC0, 0xC1, 0xC3, 0xF7))
            content[frame + 5 : frame + 9] = size[2:] * 2
        replace_pixels(data, bytes(content), syntax)
    data.Rows = data.Columns = 30000
    data.save_as(path)
    return path


@pytest.mark.parametrize(
    "syntax", [RLELossless, JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless], ids=str
)
def test_a_bomb_is_refused_by_its_header_and_ends_within_the_limits_without_that(syntax, child, tmp_path):
    good = film(tmp_path / "good", "PNG")
    path = bomb(tmp_path / "bomb", syntax)
    assert outcome(child.decode(path)) == "too_large"
    assert isinstance(child.decode(good), Ready)
    unwary = Decoder(Decode(timeout_s=5.0, memory_mb=512, max_megapixels=1000))
    try:
        assert outcome(unwary.decode(path)) in {"decoder_memory", "decoder_timeout", "decoder_crashed", "damaged", "truncated"}
        assert isinstance(unwary.decode(good), Ready)
        data = pydicom.dcmread(path)
        data.Rows = data.Columns = 200
        data.save_as(path)
        # Run lengths say nothing of their size: the part that the header asks for is read, and it is white.
        assert outcome(unwary.decode(path)) == ("blank" if syntax == RLELossless else "damaged")
        assert isinstance(unwary.decode(good), Ready)
    finally:
        unwary.close()
