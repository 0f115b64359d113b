"""From stored values to the display: each transformation against its formula in the standard."""

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless

from edge.errors import Refused, Unreadable
from edge.pixels.decode import decode_file
from edge.pixels.quality import check_quality
from tests.support.dicom_files import LOSSLESS, dicom

RAMP = np.arange(4096, dtype=np.uint16).reshape(64, 64)
"""Every value of 12 bits."""


def shown(path, pixels=RAMP, **values):
    return np.asarray(decode_file(dicom(path, pixels, bits=values.pop("bits", 12), **values)).image)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "f"


def lut(first, table, bits, *, packed=None, vr="US"):
    item = Dataset()
    item.LUTDescriptor = [len(table), first, bits]
    item["LUTDescriptor"].VR = vr
    content = [int(value) for value in table] if packed is None else np.asarray(table, packed).tobytes()
    item["LUTData"] = pydicom.DataElement(0x00283006, "US" if packed is None else "OW", content)
    return pydicom.Sequence([item])


def linear(x, c, w):
    return np.rint((((x - (c - 0.5)) / (w - 1) + 0.5) * 255).clip(0, 255))


FUNCTIONS = {
    "LINEAR": linear,
    "LINEAR_EXACT": lambda x, c, w: np.rint((((x - c) / w + 0.5) * 255).clip(0, 255)),
    "SIGMOID": lambda x, c, w: np.rint(255 * (0.5 + 0.5 * np.tanh(2 * (x - c) / w))),
}


@pytest.mark.parametrize("function", FUNCTIONS)
@given(centre=st.integers(-500, 4500), width=st.integers(2, 5000), slope=st.sampled_from([1.0, 0.5, -2.0]))
@settings(max_examples=40, deadline=None)
def test_window_functions(function, tmp_path_factory, centre, width, slope):
    path = tmp_path_factory.getbasetemp() / "window"
    given = shown(path, WindowCenter=centre, WindowWidth=width, VOILUTFunction=function, RescaleSlope=slope, RescaleIntercept=-100)
    expected = FUNCTIONS[function](RAMP * slope - 100.0, centre, width)
    assert np.abs(given - expected).max() == 0


def test_the_first_of_several_windows_counts_and_nonsense_is_no_window(path):
    first = shown(path, WindowCenter=1000, WindowWidth=500)
    assert np.array_equal(first, shown(path, WindowCenter=[1000, 2000], WindowWidth=[500, 100]))
    assert np.array_equal(shown(path, WindowCenter=1000, WindowWidth=0), shown(path))
    assert np.array_equal(shown(path, WindowCenter=1000, WindowWidth=0.5, VOILUTFunction="LINEAR"), shown(path))
    step = shown(path, WindowCenter=1000, WindowWidth=1)
    assert np.array_equal(step, np.where(RAMP >= 1000, 255, 0))


def test_a_window_of_less_than_one_is_a_window_where_the_standard_allows_it(path):
    narrow = {"WindowCenter": 0.5, "WindowWidth": 0.5, "VOILUTFunction": "LINEAR_EXACT"}
    given = shown(path, RescaleSlope="0.000244140625", RescaleIntercept=0, **narrow)
    assert np.array_equal(given, np.rint(((RAMP / 4096 - 0.5) / 0.5 + 0.5).clip(0, 1) * 255))


@pytest.mark.parametrize(("bits", "packed"), [(8, "u1"), *((bits, kind) for bits in (8, 10, 12, 16) for kind in (None, "<u2"))])
@pytest.mark.parametrize("entries", [100, 256, 3000])
def test_voi_tables(bits, packed, entries, path):
    table = (np.linspace(0, 1, entries) ** 2 * ((1 << bits) - 1)).astype(int)
    given = shown(path, VOILUTSequence=lut(700, table, bits, packed=packed))
    expected = table[(RAMP.astype(int) - 700).clip(0, entries - 1)] >> (bits - 8)
    assert np.array_equal(given, expected)


def test_a_table_that_begins_below_zero_and_one_that_is_too_short(path):
    signed = RAMP.astype(np.int16) - 2048
    table = np.arange(4096)[::-1]
    given = shown(path, signed, VOILUTSequence=lut(-2048, table, 12, vr="SS"))
    assert np.array_equal(given, (4095 - RAMP) >> 4)
    unsigned_first = shown(path, signed, VOILUTSequence=lut(65536 - 2048, table, 12))
    assert np.array_equal(unsigned_first, given)
    short = lut(0, table, 12)
    short[0].LUTDescriptor = [5000, 0, 12]
    with pytest.raises(Unreadable, match="damaged"):
        shown(path, VOILUTSequence=short)
    with pytest.raises(Unreadable, match="unsupported_encoding"):
        shown(path, VOILUTSequence=lut(0, table, 24))


def test_an_empty_sequence_is_none(path):
    window = {"WindowCenter": 1000, "WindowWidth": 500}
    assert np.array_equal(shown(path, VOILUTSequence=pydicom.Sequence([]), **window), shown(path, **window))


@pytest.mark.parametrize(("most", "bits"), [(255, 8), (1023, 10), (4095, 12), (4096, 16), (65535, 16)])
def test_a_table_that_declares_more_bits_than_it_has_is_not_nearly_black(path, most, bits):
    table = np.linspace(0, most, 4096).astype(int)
    assert np.array_equal(shown(path, VOILUTSequence=lut(0, table, 16)), shown(path, VOILUTSequence=lut(0, table, bits)))
    assert np.array_equal(shown(path, ModalityLUTSequence=lut(0, table, 16)), shown(path, VOILUTSequence=lut(0, table, bits)))


def test_modality_tables_and_slopes(path):
    table = np.sqrt(np.arange(4096) / 4095) * 65535
    alone = shown(path, ModalityLUTSequence=lut(0, table.astype(int), 16))
    assert np.array_equal(alone, table.astype(int)[RAMP] >> 8)
    window = {"WindowCenter": 30000, "WindowWidth": 20000}
    assert np.array_equal(
        shown(path, ModalityLUTSequence=lut(0, table.astype(int), 16), **window), linear(table.astype(int)[RAMP], 30000, 20000)
    )
    assert np.array_equal(shown(path, RescaleSlope=-1, RescaleIntercept=4095), 255 - shown(path))
    assert np.array_equal(shown(path, RescaleSlope=2, RescaleIntercept=-1000), shown(path))
    assert np.array_equal(shown(path, RescaleSlope="1e300", RescaleIntercept=0, WindowCenter=9, WindowWidth=9)[0, 1:], [255] * 63)


def test_inversion_is_done_once(path):
    plain = shown(path)
    assert np.array_equal(shown(path, photometric="MONOCHROME1"), 255 - plain)
    assert np.array_equal(shown(path, PresentationLUTShape="INVERSE"), 255 - plain)
    assert np.array_equal(shown(path, photometric="MONOCHROME1", PresentationLUTShape="INVERSE"), 255 - plain)
    assert np.array_equal(shown(path, photometric="MONOCHROME2", PresentationLUTShape="IDENTITY"), plain)


@given(
    bits=st.integers(8, 14),
    above=st.integers(0, 2),
    signed=st.booleans(),
    overlay=st.integers(0, 0xFFFF),
    syntax=st.sampled_from((None, *LOSSLESS)),
)
@settings(max_examples=60, deadline=None)
def test_any_high_bit_and_anything_in_the_unused_bits(tmp_path_factory, bits, above, signed, overlay, syntax):
    path = tmp_path_factory.getbasetemp() / "high"
    values = RAMP.astype(np.int64) % (1 << bits)
    unused = overlay & ~(((1 << bits) - 1) << above) & 0xFFFF
    cells = ((values << above) | unused).astype(np.uint16)
    dicom(path, cells.view(np.int16) if signed else cells, bits=16)
    data = pydicom.dcmread(path)
    if syntax is not None:
        dicom(path, cells.view(np.int16) if signed else cells, bits=16, syntax=syntax)
        data = pydicom.dcmread(path)
    data.BitsStored, data.HighBit = bits, bits + above - 1
    data.save_as(path)
    expected = values >> (bits - 8)
    if signed:
        expected = expected ^ 128  # two's complement, lifted above zero
    assert np.array_equal(decode_file(path).image, expected)


@pytest.mark.parametrize("high", [0, 3, 16, 99])
def test_an_impossible_high_bit_is_taken_for_the_usual_one(high, path):
    assert np.array_equal(shown(path, HighBit=high), shown(path))


def test_a_decoder_that_knows_the_significant_bits_puts_them_at_the_bottom(path):
    """The stream has 12 bits; where they lay in the cell before compression no longer counts."""
    assert np.array_equal(shown(path, HighBit=15, syntax=JPEGLSLossless), RAMP >> 4)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(
    "window", [{}, {"WindowCenter": 2000, "WindowWidth": 3000}, {"VOILUTSequence": lut(0, range(4095, -1, -1), 12)}]
)
def test_padding_is_black_and_moves_no_other_value(photometric, window, path):
    plain = shown(path, photometric=photometric, **window)
    for padding, within in [
        ({"PixelPaddingValue": 0}, RAMP == 0),
        ({"PixelPaddingValue": 4095}, RAMP == 4095),
        ({"PixelPaddingValue": 4000, "PixelPaddingRangeLimit": 4095}, RAMP >= 4000),
        ({"PixelPaddingValue": 300, "PixelPaddingRangeLimit": 0}, RAMP <= 300),
    ]:
        given = shown(path, photometric=photometric, **window, **padding)
        assert (given[within] == 0).all()
        assert np.array_equal(given[~within], plain[~within])


@pytest.mark.parametrize("value", [-2048, 65536 - 2048])
def test_padding_of_signed_values_may_be_written_without_a_sign(value, path):
    data = pydicom.dcmread(dicom(path, RAMP.astype(np.int16) - 2048, bits=12, photometric="MONOCHROME1"))
    data["PixelPaddingValue"] = pydicom.DataElement(0x00280120, "SS" if value < 0 else "US", value)
    data.save_as(path)
    given = np.asarray(decode_file(path).image)
    assert given[0, 0] == 0
    assert given[0, 63] == 255 - (63 >> 4)


def test_padding_of_a_compressed_object(path):
    for syntax in (JPEGLSLossless, JPEG2000Lossless):
        given = shown(path, photometric="MONOCHROME1", PixelPaddingValue=0, PixelPaddingRangeLimit=15, syntax=syntax)
        assert np.array_equal(given, np.where(RAMP <= 15, 0, 255 - (RAMP >> 4)))


def test_colour_becomes_gray_with_its_chroma(path):
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (300, 300, 3), np.uint8)
    gray = Image.fromarray(np.dstack([colours[..., 0]] * 3))
    picture = decode_file(dicom(path, colours))
    assert np.array_equal(picture.image, Image.fromarray(colours).convert("L"))
    with pytest.raises(Refused, match="colour"):
        check_quality(picture)
    deep = decode_file(dicom(path, colours.astype(np.uint16) << 4, bits=12))
    assert np.array_equal(deep.image, picture.image)
    for kind in ("YBR_FULL", "YBR_FULL_422"):
        ycc = np.asarray(gray.convert("YCbCr"))
        if kind == "YBR_FULL_422":
            ycc = np.stack([ycc[:, ::2, 0], ycc[:, 1::2, 0], ycc[:, ::2, 1], ycc[:, ::2, 2]], axis=-1).reshape(300, 150, 4)
        path = dicom(path, np.asarray(gray), PhotometricInterpretation=kind, SamplesPerPixel=3, PlanarConfiguration=0)
        data = pydicom.dcmread(path)
        data.PixelData = ycc.tobytes()
        data.save_as(path)
        picture = decode_file(path)
        assert np.abs(np.asarray(picture.image).astype(int) - colours[..., 0]).max() <= 1
        assert picture.chroma <= 1


@pytest.mark.parametrize("bits", [8, 16])
def test_a_palette_is_looked_up(bits, path):
    table = np.arange(256)[::-1].astype(np.uint8 if bits == 8 else np.uint16) * (1 if bits == 8 else 257)
    names = [f"{colour}PaletteColorLookupTable" for colour in ("Red", "Green", "Blue")]
    values = {f"{name}Descriptor": [256, 0, bits] for name in names} | {f"{name}Data": table.tobytes() for name in names}
    frame = (RAMP >> 4).astype(np.uint8)
    dicom(path, frame, photometric="PALETTE COLOR", **values)
    picture = decode_file(path)
    assert np.array_equal(picture.image, 255 - frame)
    assert picture.chroma == 0
    red = np.zeros_like(table)
    dicom(path, frame, photometric="PALETTE COLOR", **(values | {"RedPaletteColorLookupTableData": red.tobytes()}))
    assert decode_file(path).chroma > 12


def test_impossible_bits_are_refused(path):
    for values, reason in [
        ({"BitsStored": 0}, "damaged"),
        ({"BitsStored": 17}, "damaged"),
        ({"BitsAllocated": 32}, "unsupported_encoding"),
        ({"BitsAllocated": 12}, "unsupported_encoding"),
        ({"SamplesPerPixel": 4}, "unsupported_encoding"),
    ]:
        data = pydicom.dcmread(dicom(path, RAMP, bits=12))
        for keyword, value in values.items():
            setattr(data, keyword, value)
        data.save_as(path)
        with pytest.raises(Unreadable, match=reason):
            decode_file(path)


def test_an_image_for_processing_is_shown_as_its_header_says(path):
    assert np.array_equal(shown(path, PresentationIntentType="FOR PROCESSING", PixelIntensityRelationship="LIN"), shown(path))
