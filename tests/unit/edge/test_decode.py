"""One picture in many files: what is read is the picture, whatever it is wrapped in."""

import zlib

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.uid import DeflatedExplicitVRLittleEndian, RLELossless

from edge.errors import ImageError, Refused, Unreadable
from edge.pixels.decode import Limits, decode_file
from edge.pixels.decoder_child import answer
from edge.pixels.decoder_protocol import NotReady, Request
from edge.pixels.quality import check_quality
from export.phantom import phantom
from tests.support.dicom_files import dicom

FRAME = phantom(3, width=300, height=260)


def png(path, pixels):
    Image.fromarray(pixels).save(path, "PNG")
    return path


def white_is_zero(path, pixels):
    """Pillow writes no such TIFF: the value of tag 262 is changed from 1 to 0 in one that it wrote."""
    Image.fromarray(pixels).save(path, "TIFF")
    content = path.read_bytes()
    entry = bytes.fromhex("060103000100000001000000")
    assert content.count(entry) == 1
    path.write_bytes(content.replace(entry, entry[:8] + bytes(4)))


WAYS = {
    "png": lambda p: png(p, FRAME),
    "png16": lambda p: png(p, FRAME.astype(np.uint16) << 8),
    "png12in16": lambda p: png(p, FRAME.astype(np.uint16) << 4),
    "png-rgb": lambda p: png(p, np.dstack([FRAME] * 3)),
    "tiff": lambda p: Image.fromarray(FRAME).save(p, "TIFF", compression="tiff_lzw"),
    "tiff16": lambda p: Image.fromarray(FRAME.astype(np.uint16) * 257).save(p, "TIFF"),
    "png-palette": lambda p: Image.fromarray(FRAME).convert("P").save(p, "PNG"),
    "png-alpha": lambda p: Image.merge("LA", [Image.fromarray(FRAME), Image.fromarray(FRAME // 2)]).save(p, "PNG"),
    "png-rgb-alpha": lambda p: Image.fromarray(np.dstack([FRAME] * 4)).save(p, "PNG"),
    "tiff-white-is-zero": lambda p: white_is_zero(p, 255 - FRAME),
    "tiff16-white-is-zero": lambda p: white_is_zero(p, 65535 - FRAME.astype(np.uint16) * 257),
    "dicom8": lambda p: dicom(p, FRAME),
    "dicom12": lambda p: dicom(p, FRAME.astype(np.uint16) << 4, bits=12),
    "dicom16-signed": lambda p: dicom(p, ((FRAME.astype(np.int32) << 8) - 32768).astype(np.int16), bits=16),
    "dicom-mono1": lambda p: dicom(p, 4095 - (FRAME.astype(np.uint16) << 4), bits=12, photometric="MONOCHROME1"),
    "dicom-rle": lambda p: dicom(p, FRAME, syntax=RLELossless),
    "dicom-rgb": lambda p: dicom(p, np.dstack([FRAME] * 3)),
    "dicom-window": lambda p: dicom(p, FRAME.astype(np.uint16) + 1000, bits=12, WindowCenter=1128, WindowWidth=256),
}


@pytest.mark.parametrize("way", WAYS)
def test_lossless_ways_of_one_picture_are_read_alike(way, tmp_path):
    path = tmp_path / "no-telling-name"
    WAYS[way](path)
    picture = decode_file(path)
    assert np.array_equal(picture.image, FRAME)
    check_quality(picture)


def test_a_jpeg_differs_little(tmp_path):
    Image.fromarray(FRAME).save(tmp_path / "a", "JPEG", quality=95)
    assert np.abs(np.asarray(decode_file(tmp_path / "a").image).astype(int) - FRAME).mean() < 4


def test_a_photograph_is_laid_the_way_its_header_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(FRAME).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(decode_file(tmp_path / "a.png").image, FRAME[::-1, ::-1])


NO_LIMITS = Limits()


def reason_of(path, limits=NO_LIMITS):
    with pytest.raises(ImageError) as caught:
        check_quality(decode_file(path, limits))
    return caught.value.reason


def test_bad_files_have_reasons(tmp_path):
    def written(content):
        path = tmp_path / "f"
        path.write_bytes(content)
        return path

    whole = png(tmp_path / "whole.png", FRAME).read_bytes()
    assert reason_of(written(b"")) == "empty_file"
    assert reason_of(written(b"hello, world")) == "not_an_image"
    assert reason_of(written(b"%PDF-1.4\n" + b"x" * 500)) == "not_an_image"
    assert reason_of(written(whole[: len(whole) // 2])) == "truncated"
    assert reason_of(written(whole), Limits(max_bytes=1000)) == "too_large"
    assert reason_of(written(whole), Limits(max_pixels=1000)) == "too_large"
    Image.fromarray(FRAME).save(tmp_path / "two.tif", save_all=True, append_images=[Image.fromarray(FRAME)])
    assert reason_of(tmp_path / "two.tif") == "multi_frame"


def test_a_png_that_declares_a_huge_size_is_refused_before_it_is_decoded(tmp_path):
    def chunk(name, content):
        return len(content).to_bytes(4, "big") + name + content + zlib.crc32(name + content).to_bytes(4, "big")

    header = chunk(b"IHDR", (60000).to_bytes(4, "big") * 2 + bytes([8, 0, 0, 0, 0]))
    (tmp_path / "bomb").write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100000))))
    assert reason_of(tmp_path / "bomb") == "too_large"


def test_bad_dicom_has_reasons(tmp_path):
    path = tmp_path / "f"
    assert reason_of(dicom(path, None)) == "no_pixels"
    assert reason_of(dicom(path, FRAME, NumberOfFrames=4)) == "multi_frame"
    assert reason_of(dicom(path, FRAME, Modality="CT")) == "not_a_radiograph"
    assert reason_of(dicom(path, FRAME, Rows=50000, Columns=50000)) == "too_large"
    whole = dicom(path, FRAME).read_bytes()
    path.write_bytes(whole[:-20000])
    assert reason_of(path) == "truncated"
    path.write_bytes(whole[:140])
    assert reason_of(path) in {"truncated", "damaged", "no_pixels"}
    # A deflated data set is refused unread: inflating has no bound.
    bomb = pydicom.dcmread(dicom(path, FRAME))
    bomb.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    bomb.save_as(path, enforce_file_format=True)
    assert reason_of(path) == "unsupported_encoding"


def cut(path):
    path.write_bytes(path.read_bytes()[:-9000])


SPOILT = {
    "multi_frame": {"NumberOfFrames": 4},
    "not_a_radiograph": {"Modality": "CT"},
    "no_pixels": {"pixels": None},
    "too_large": {"Rows": 50000, "Columns": 50000},
    "unsupported_encoding": {"BitsAllocated": 32},
    "damaged": {"Rows": 0},
    "truncated": {"then": cut},
    "truncated run lengths": {"syntax": RLELossless, "then": cut},
}
"""Reason, and what is wrong with a film that ends so."""


def spoilt(path, what, **values):
    changes = SPOILT[what] | values
    then = changes.pop("then", lambda path: None)
    dicom(path, changes.pop("pixels", FRAME), **changes)
    then(path)
    return path


@pytest.mark.filterwarnings("ignore")  # as in the decoding process
@pytest.mark.parametrize("what", SPOILT)
def test_a_film_that_is_refused_or_unreadable_keeps_its_headers(what, tmp_path):
    path = spoilt(tmp_path / "f", what, PatientID="K-1", PatientName="Doe^Jane", StudyInstanceUID="1.2.9")
    told = []
    with pytest.raises(ImageError) as caught:
        decode_file(path, tell=told.append)
    assert caught.value.reason == what.split()[0]
    answered = answer(Request(bytes(path), 10**8, 10**8))
    assert isinstance(answered, NotReady)
    assert [answered.headers] == told
    headers = answered.headers
    assert (headers.patient_id, headers.patient_name, headers.study_instance_uid) == ("K-1", "Doe^Jane", "1.2.9")
    assert (headers.sop_instance_uid, bool(headers.study)) == ("1.2.3.4", True)


def test_headers_are_read_and_nonsense_is_left_out(tmp_path):
    path = dicom(
        tmp_path / "f",
        FRAME,
        PatientID="K-1",
        StudyInstanceUID="1.2.9",
        StudyDate="20260131",
        PatientAge="045Y",
        PatientSex="F",
        ViewPosition="PA",
    )
    headers = decode_file(path).headers
    assert (headers.patient_id, headers.study_instance_uid, headers.exam_date) == ("K-1", "1.2.9", "2026-01-31")
    assert (headers.age_years, headers.sex, headers.view, headers.sop_instance_uid) == (45, "F", "PA", "1.2.3.4")
    path = dicom(tmp_path / "f", FRAME, StudyDate="20260131", PatientBirthDate="20200201", PatientSex="X")
    headers = decode_file(path).headers
    assert (headers.age_years, headers.sex, headers.view, headers.patient_id) == (5, None, None, None)


def test_the_gate_refuses_what_no_network_should_see(tmp_path):
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (30, 30, 3), dtype=np.uint8).repeat(10, 0).repeat(10, 1)
    assert reason_of(png(tmp_path / "a", colours)) == "colour"
    assert reason_of(png(tmp_path / "a", FRAME[:150, :150])) == "too_small"
    assert reason_of(png(tmp_path / "a", np.tile(FRAME, (1, 4)))) == "odd_shape"
    assert reason_of(png(tmp_path / "a", np.full((300, 300), 9, np.uint8))) == "blank"
    burnt = FRAME.copy()
    burnt[65:195, 75:225] = 255
    assert reason_of(png(tmp_path / "a", burnt)) == "burnt_out"
    burnt[65:195, 75:195] = 100  # now a fifth of the middle
    check_quality(decode_file(png(tmp_path / "a", burnt)))
    with pytest.raises(Refused):
        check_quality(decode_file(png(tmp_path / "a", colours)))


@pytest.fixture(scope="module")
def wholes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wholes")
    small = FRAME[:40, :40]
    files = [png(folder / "a", small), dicom(folder / "c", small), dicom(folder / "d", small, syntax=RLELossless)]
    Image.fromarray(small).save(folder / "b", "JPEG")
    Image.fromarray(small).save(folder / "e", "TIFF")
    return Wholes(path.read_bytes() for path in [*files, folder / "b", folder / "e"])


class Wholes(list):
    def __repr__(self):
        return "the whole files"


@pytest.mark.filterwarnings("ignore")  # decoders warn of what they then read; the decoding process is silent about it
@given(
    which=st.integers(0, 4),
    cut=st.floats(0.01, 1),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=8),
)
@settings(max_examples=300, deadline=None)
def test_damage_gives_a_picture_or_a_reason_never_another_error(wholes, tmp_path_factory, which, cut, changes):
    content = bytearray(wholes[which])
    for place, value in changes:
        content[int(place * len(content))] = value
    del content[int(cut * len(content)) :]
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(content)
    try:
        frame = np.asarray(decode_file(path, Limits(max_pixels=100_000)).image)
    except (Unreadable, Refused):
        return
    assert frame.dtype == np.uint8
    assert frame.ndim == 2


def test_what_is_said_of_a_bad_file_never_quotes_it(tmp_path):
    """Damage moves the patient's name into elements that are shown, or makes pydicom quote what it cannot read."""
    name = "ZANZIBAR^QUETZAL"
    for values in (
        {"Modality": name},
        {"SOPClassUID": name, "PixelData": None},
        {"WindowCenter": name, "RescaleSlope": name},
        {"BitsStored": name},
        {"Rows": name},
        {"NumberOfFrames": name},
    ):
        data = pydicom.dcmread(dicom(tmp_path / "f", FRAME, PatientName=name))
        for keyword, value in values.items():
            if value is None:
                del data[keyword]
            else:
                data[keyword] = pydicom.DataElement(keyword, "LO", value)
        data.save_as(tmp_path / "f", enforce_file_format=False)
        try:
            detail = str(check_quality(decode_file(tmp_path / "f")))
        except ImageError as error:
            detail = error.detail
        assert "ZANZ" not in detail.upper()
