"""One picture in every transfer syntax: the same network input where nothing is lost, nearly the same where something is."""

import subprocess
import sys
import tracemalloc
from pathlib import Path

import jpeg_ls
import numpy as np
import pydicom
import pydicom.data
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    MPEG4HP41,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from edge.errors import ImageError, Unreadable
from edge.network.bundle import load_bundle
from edge.pixels.codestream import Codestream, read_codestream
from edge.pixels.decode import Limits, decode_file
from edge.pixels.dicom_rle import decode_rle
from edge.pixels.dicom_stored import join_fragments, read_stored
from edge.pixels.preprocess import preprocess, preprocess_image
from export.phantom import phantom
from tests.support.dicom_files import LOSSLESS, LOSSY, UNCOMPRESSED, compress_by_gdcm, dicom, replace_pixels

FRAME = phantom(3, width=120, height=100)
DEEP = FRAME.astype(np.uint16) << 4
COMPRESSED = [syntax for syntax in (*LOSSLESS, *LOSSY) if syntax != RLELossless]


def name(syntax):
    return syntax.name


NO_LIMITS = Limits()


def reason_of(path, limits=NO_LIMITS):
    with pytest.raises(ImageError) as caught:
        decode_file(path, limits)
    return caught.value.reason


@st.composite
def pictures(draw):
    height, width = draw(st.integers(16, 48)), draw(st.integers(16, 48))
    frame = np.random.default_rng(draw(st.integers(0, 1 << 30))).integers(0, 256, (height, width), np.uint8)
    if draw(st.booleans()):  # long runs, and corners where an encoder's carry and sign show
        frame = np.where(frame > draw(st.integers(0, 255)), 255, 0).astype(np.uint8)
    return frame


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("ways") / "picture"


@given(
    frame=pictures(),
    syntax=st.sampled_from((*UNCOMPRESSED, *LOSSLESS)),
    bits=st.sampled_from((8, 10, 12, 13, 14, 16)),
    signed=st.booleans(),
    inverted=st.booleans(),
    below=st.integers(0, 255),
    wide=st.booleans(),
)
@settings(max_examples=250, deadline=None)
def test_every_lossless_way_gives_the_same_network_input(scratch, frame, syntax, bits, signed, inverted, below, wide):
    values = (frame.astype(np.int32) << (bits - 8)) + below % (1 << (bits - 8))  # what is cut off may be anything
    if inverted:
        values = (1 << bits) - 1 - values
    values -= (1 << (bits - 1)) * signed
    pixels = values.astype(f"{'i' if signed else 'u'}{2 if bits > 8 or wide else 1}")
    dicom(scratch, pixels, bits=bits, syntax=syntax, photometric=f"MONOCHROME{1 if inverted else 2}")
    assert np.array_equal(preprocess_image(decode_file(scratch).image), preprocess(frame))


@given(
    frame=pictures(),
    bits=st.sampled_from((8, 10, 12, 14, 16)),
    kind=st.sampled_from(("PNG", "TIFF")),
    below=st.integers(0, 255),
)
@settings(max_examples=60, deadline=None)
def test_deep_raster_files_give_the_same_network_input(scratch, frame, bits, kind, below):
    frame[0, 0] = 255  # such a file says how deep it is by its largest value alone
    deep = (frame.astype(np.uint16) << (bits - 8)) + np.uint16(below % (1 << (bits - 8)))
    Image.fromarray(frame if bits == 8 else deep).save(scratch, kind)
    assert np.array_equal(preprocess_image(decode_file(scratch).image), preprocess(frame))


@pytest.fixture(scope="module")
def bundle():
    return load_bundle()


@pytest.mark.parametrize("way", [*LOSSY, "JPEG file"], ids=str)
@pytest.mark.parametrize("seed", [1, 2])
def test_lossy_ways_change_little(way, seed, bundle, tmp_path):
    """The bounds are three times what real films showed, for the input; for the probabilities what one grey level of noise does."""
    frame = phantom(seed, width=512, height=600)
    if way == "JPEG file":
        Image.fromarray(frame).save(tmp_path / "f", "JPEG", quality=92)
    elif way == JPEGBaseline8Bit:
        dicom(tmp_path / "f", frame, syntax=way)
    else:
        dicom(tmp_path / "f", frame.astype(np.uint16) << 4, bits=12, syntax=way)
    expected = preprocess(frame)
    given = np.asarray(preprocess_image(decode_file(tmp_path / "f").image))
    difference = np.abs(given.astype(int) - expected)
    assert 0 < difference.max() <= 12
    assert difference.mean() < 2.5
    before, after = bundle.decide(expected), bundle.decide(given)
    assert max(abs(after.probabilities[label] - value) for label, value in before.probabilities.items()) <= 0.15


@pytest.mark.parametrize("syntax", [JPEG2000, JPEGLSNearLossless], ids=name)
def test_values_that_a_lossy_encoder_pushes_beyond_the_white_stay_white(syntax, tmp_path):
    """Encoders that fill the whole cell know no white at 12 bits; cut off at 12 bits, 4096 would be black."""
    edges = np.where(np.indices((100, 120)).sum(0) // 7 % 2, 4095, 0).astype(np.uint16)
    data = pydicom.dcmread(dicom(tmp_path / "f", edges, bits=16, syntax=syntax))
    data.BitsStored, data.HighBit = 12, 11
    data.save_as(tmp_path / "f")
    assert read_stored(data).cells.max() > 4095
    error = np.abs(np.asarray(decode_file(tmp_path / "f").image).astype(int) - np.where(edges, 255, 0))
    assert error.max() < 100


FOREIGN = [
    ("MR_small_jpeg_ls_lossless.dcm", 0),
    ("MR_small_jp2klossless.dcm", 0),
    ("MR_small_RLE.dcm", 0),
    ("J2K_pixelrep_mismatch.dcm", 0),
    ("JPEG2000.dcm", 0),
    ("JPEGLSNearLossless_16.dcm", 0),
    ("JPEGLSNearLossless_08.dcm", 0),
    ("SC_rgb_jpeg_gdcm.dcm", 0),
    ("SC_rgb_jls_lossy_line.dcm", 0),
    ("SC_rgb_jls_lossy_sample.dcm", 0),
    ("SC_rgb_gdcm_KY.dcm", 1),
    ("SC_rgb_dcmtk_+eb+cr.dcm", 1),
    ("SC_rgb_dcmtk_+eb+cy+np.dcm", 4),
    ("SC_jpeg_no_color_transform.dcm", 1),
]
"""File of pydicom's own tests, written by other people's encoders, and by how much two decoders may differ."""


@pytest.mark.parametrize(("file", "most"), FOREIGN, ids=[file for file, _ in FOREIGN])
@pytest.mark.filterwarnings("ignore")  # pydicom warns of what it then reads
def test_files_of_other_encoders_are_read_as_pydicom_reads_them(file, most):
    data = pydicom.dcmread(Path(pydicom.data.__file__).parent / "test_files" / file)
    expected = data.pixel_array
    stored = read_stored(data)
    mask = (1 << data.BitsStored) - 1
    assert stored.cells.shape == expected.shape
    assert np.abs((stored.cells & mask).astype(int) - (expected.astype(int) & mask)).max() <= most


@pytest.mark.parametrize("syntax", COMPRESSED, ids=name)
def test_a_header_that_says_other_than_the_compressed_picture_is_refused(syntax, tmp_path):
    eight = syntax == JPEGBaseline8Bit
    path = dicom(tmp_path / "f", FRAME if eight else DEEP, bits=8 if eight else 12, syntax=syntax)
    assert decode_file(path).image.size == (120, 100)
    lies = [
        {"Rows": 101},
        {"Rows": 99},
        {"Columns": 60, "Rows": 200},
        {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"},
        {"BitsAllocated": 16, "BitsStored": 16, "HighBit": 15} if eight else {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7},
    ]
    for lie in lies:
        data = pydicom.dcmread(path)
        for keyword, value in lie.items():
            setattr(data, keyword, value)
        data.save_as(tmp_path / "lie")
        assert (lie, reason_of(tmp_path / "lie")) == (lie, "damaged")


@pytest.mark.parametrize("syntax", COMPRESSED, ids=name)
def test_a_compressed_picture_that_is_cut_short_is_refused(syntax, tmp_path):
    eight = syntax == JPEGBaseline8Bit
    path = dicom(tmp_path / "f", FRAME if eight else DEEP, bits=8 if eight else 12, syntax=syntax)
    data = pydicom.dcmread(path)
    content = join_fragments(data.PixelData)
    for share in (0.0, 0.02, 0.3, 0.9):
        replace_pixels(data, content[: max(int(len(content) * share), 2)], syntax).save_as(tmp_path / "cut")
        assert (share, reason_of(tmp_path / "cut")) in {(share, "truncated"), (share, "damaged")}


def test_fragments_are_joined_and_a_list_that_lies_is_refused(tmp_path):
    data = pydicom.dcmread(dicom(tmp_path / "f", DEEP, bits=12, syntax=JPEGLosslessSV1))
    content = join_fragments(data.PixelData)

    def reason(value):
        data["PixelData"] = pydicom.DataElement(0x7FE00010, "OB", value, is_undefined_length=True)
        data.save_as(tmp_path / "f")
        return reason_of(tmp_path / "f")

    item, delimiter = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0" + bytes(4)
    third = len(content) // 3 // 2 * 2
    parts = [content[:third], content[third : 2 * third], content[2 * third :]]

    def value(table, parts):
        return item + len(table).to_bytes(4, "little") + table + b"".join(item + len(p).to_bytes(4, "little") + p for p in parts)

    for table in (b"", bytes(4)):
        data["PixelData"] = pydicom.DataElement(0x7FE00010, "OB", value(table, parts) + delimiter, is_undefined_length=True)
        data.save_as(tmp_path / "f")
        assert np.array_equal(decode_file(tmp_path / "f").image, FRAME)
    assert reason(value(b"", parts[:2])) == "truncated"
    assert reason(value(b"", [])) == "damaged"
    assert reason(value(b"\x10\0\0\0", parts)) == "damaged"
    assert reason(value(bytes(4) + b"\x10\0\0\0", parts)) == "damaged"
    assert reason(value(b"", parts) + item + (1 << 31).to_bytes(4, "little") + bytes(4)) == "truncated"
    assert reason(value(b"", parts[:1]) + b"\1\2\3\4\5\6\7\x08") == "damaged"
    assert reason(encapsulate([b"no picture at all "])) == "damaged"


def test_a_small_header_does_not_let_a_large_picture_in(tmp_path):
    """The declared size is within the limit; that of the compressed picture is looked at before it is decoded."""
    huge = pydicom.dcmread(dicom(tmp_path / "f", np.zeros((3000, 3000), np.uint8), syntax=JPEG2000Lossless))
    huge.Rows = huge.Columns = 300
    huge.save_as(tmp_path / "f")
    assert reason_of(tmp_path / "f", Limits(max_pixels=100_000)) == "damaged"


@pytest.mark.parametrize(
    ("module", "syntax"), [("jpeg_ls", JPEGLSLossless), ("gdcm", JPEGLosslessSV1), ("gdcm", JPEGExtended12Bit)], ids=str
)
def test_a_device_without_a_decoder_refuses_what_needs_it(module, syntax, tmp_path, monkeypatch):
    path = dicom(tmp_path / "f", DEEP, bits=12, syntax=syntax)
    monkeypatch.setitem(sys.modules, module, None)
    assert reason_of(path) == "unsupported_encoding"


@pytest.mark.parametrize("syntax", [HTJ2K, MPEG4HP41, pydicom.uid.UID("1.2.840.113619.5.2")], ids=str)
def test_other_syntaxes_are_refused(syntax, tmp_path):
    data = pydicom.dcmread(dicom(tmp_path / "f", FRAME))
    replace_pixels(data, b"\xff\xd8\xff\xd9", syntax)
    data.save_as(tmp_path / "f", implicit_vr=False, little_endian=True)
    assert reason_of(tmp_path / "f") in {"unsupported_encoding", "damaged"}
    if not syntax.is_private:
        assert reason_of(tmp_path / "f") == "unsupported_encoding"


def test_a_decoder_is_loaded_only_by_the_picture_that_needs_it(tmp_path):
    files = [dicom(tmp_path / "raw", DEEP, bits=12)]
    files += [dicom(tmp_path / syntax, FRAME, syntax=syntax) for syntax in (RLELossless, JPEGBaseline8Bit, JPEG2000Lossless)]
    Image.fromarray(FRAME).save(tmp_path / "a.png")
    needy = [dicom(tmp_path / "ls", FRAME, syntax=JPEGLSLossless), dicom(tmp_path / "ll", FRAME, syntax=JPEGLosslessSV1)]
    program = (
        "import sys; from pathlib import Path; from edge.pixels.decode import decode_file\n"
        "for name in sys.argv[1:]:\n"
        "    decode_file(Path(name)); print(' '.join(sorted({'gdcm', 'jpeg_ls'} & sys.modules.keys())))"
    )
    command = [sys.executable, "-c", program, *map(str, [tmp_path / "a.png", *files, *needy])]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    assert lines == ["", "", "", "", "", "jpeg_ls", "gdcm jpeg_ls"]


def test_run_lengths_are_bounded_and_their_header_is_checked():
    bomb = np.array([1, 64, *[0] * 14], "<u4").tobytes() + bytes([129, 7]) * 1_000_000
    tracemalloc.start()
    assert (decode_rle(bomb, 10, 10, 1, 1) == 7).all()
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()
    for content, cell_bytes, reason in [(bomb, 2, "damaged"), (bomb[:63], 1, "truncated"), (bomb[:65], 1, "truncated")]:
        with pytest.raises(Unreadable, match=reason):
            decode_rle(content, 10, 10, 1, cell_bytes)


def test_what_a_stream_declares():
    frame = b"\xff\xc0\x00\x0b\x08\x00\x05\x00\x07\x01"
    expected = Codestream(0xC0, 7, 5, 1, 8)
    for before in (b"", b"\xff\xff", b"\xff\xe0\x00\x04ab", b"\xff\x01"):
        assert read_codestream(b"\xff\xd8" + before + frame) == expected
    size = b"\xff\x4f\xff\x51\x00\x29\x00\x00" + b"".join(n.to_bytes(4, "big") for n in (17, 25, 10, 20)) + bytes(16)
    assert read_codestream(size + b"\x00\x01\x8b") == Codestream(0x51, 7, 5, 1, 12, signed=True)
    for broken, reason in [
        (b"\xff\xd8\xff", "truncated"),
        (b"\xff\xd8\xff\xd9", "damaged"),
        (b"\xff\xd8\xff\xe0\x00\x02\x00", "damaged"),
        (size, "truncated"),
        (b"BM", "damaged"),
    ]:
        with pytest.raises(Unreadable, match=reason):
            read_codestream(broken)


def test_a_lossy_jpeg_of_sixteen_bits_is_refused(tmp_path):
    """There is none: gdcm writes it for 12 bits in cells of 16, and reads noise from it."""
    path = dicom(tmp_path / "f", DEEP, bits=12)
    compress_by_gdcm(path, JPEGExtended12Bit)
    assert reason_of(path) == "damaged"


@pytest.mark.parametrize("planes", [True, False])
def test_colours_of_jpeg_ls_may_lie_in_planes(planes, tmp_path):
    colours = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    data = pydicom.dcmread(dicom(tmp_path / "f", colours))
    laid = colours.transpose(2, 0, 1) if planes else colours
    encoded = jpeg_ls.encode_buffer(laid.tobytes(), 20, 30, 3, 8, 0, 0 if planes else 2)
    stored = read_stored(replace_pixels(data, bytes(encoded), JPEGLSLossless))
    assert np.array_equal(stored.cells, colours)


@pytest.mark.parametrize("syntax", LOSSLESS, ids=name)
def test_an_odd_number_of_bytes(syntax, tmp_path):
    odd = FRAME[:37, :41]
    assert np.array_equal(decode_file(dicom(tmp_path / "f", odd, syntax=syntax)).image, odd)


@pytest.mark.parametrize("syntax", [JPEGLosslessSV1, JPEGExtended12Bit], ids=name)
def test_what_gdcm_cannot_decompress_is_refused(syntax, tmp_path):
    """Asked in another way, it says nothing and hands out what lay in memory: maybe the patient before."""
    data = pydicom.dcmread(dicom(tmp_path / "f", DEEP, bits=12, syntax=syntax))
    content = bytearray(join_fragments(data.PixelData))
    table = content.index(b"\xff\xc4") + 5
    content[table : table + 16] = b"\xff" * 16
    replace_pixels(data, bytes(content), syntax).save_as(tmp_path / "f")
    assert reason_of(tmp_path / "f") == "damaged"


def test_one_frame_in_a_class_for_several_is_read(tmp_path):
    path = dicom(
        tmp_path / "f", FRAME, NumberOfFrames=1, SOPClassUID=pydicom.uid.MultiFrameGrayscaleByteSecondaryCaptureImageStorage
    )
    assert np.array_equal(decode_file(path).image, FRAME)
    assert reason_of(dicom(tmp_path / "f", FRAME, syntax=ExplicitVRLittleEndian, NumberOfFrames=2)) == "multi_frame"
