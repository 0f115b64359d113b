"""DICOM files for tests, in every transfer syntax that a clinic's machines write."""

from __future__ import annotations

import functools
import io
import itertools
import subprocess
from pathlib import Path
from typing import Any

import gdcm
import jpeg_ls
import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    JPEG2000,
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

UNCOMPRESSED = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian)
LOSSLESS = (RLELossless, JPEGLossless, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless)
LOSSY = (JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless, JPEG2000)

_BY_DCMTK = {
    JPEGExtended12Bit: ["--encode-extended", "--quality", "95"],
    JPEGLossless: ["--encode-lossless"],
    JPEGLosslessSV1: ["--encode-lossless-sv1"],
}


def dicom(
    path: Path,
    pixels: np.ndarray | None,
    *,
    bits: int = 8,
    photometric: str = "MONOCHROME2",
    syntax: UID = ExplicitVRLittleEndian,
    **values: Any,
) -> Path:
    """Write an object with these pixels, (rows, columns) or (rows, columns, 3); `values` replace what is written of itself."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax if syntax in UNCOMPRESSED else ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = UID("1.2.840.10008.5.1.4.1.1.1")
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = UID("1.2.3.4")
    data.Modality = "CR"
    if pixels is not None:
        data.Rows, data.Columns = pixels.shape[:2]
        data.SamplesPerPixel = 1 if pixels.ndim == 2 else 3
        data.PhotometricInterpretation = photometric if pixels.ndim == 2 else "RGB"
        if pixels.ndim == 3:
            data.PlanarConfiguration = 0
        data.BitsAllocated = pixels.dtype.itemsize * 8
        data.BitsStored, data.HighBit = bits, bits - 1
        data.PixelRepresentation = int(pixels.dtype.kind == "i")
        order = ">" if syntax == ExplicitVRBigEndian else "<"
        content = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
        data["PixelData"] = pydicom.DataElement(
            0x7FE00010, "OW" if pixels.dtype.itemsize > 1 else "OB", content + bytes(len(content) % 2)
        )
    for name, value in values.items():
        setattr(data, name, value)
    data.save_as(path, enforce_file_format=True)
    if syntax not in UNCOMPRESSED:
        compress(path, syntax)
    return path


def compress(path: Path, syntax: UID) -> None:
    """Compress the pixels of an uncompressed file in place."""
    if syntax in _BY_DCMTK:
        # The only encoder at hand that writes 12 bits, and lossless JPEG of noise.
        subprocess.run(["dcmcjpeg", *_BY_DCMTK[syntax], path, path], check=True, capture_output=True)
    elif syntax in (JPEGLSLossless, JPEGLSNearLossless):
        data = pydicom.dcmread(path)
        error = 0 if syntax == JPEGLSLossless else 2
        encoded = jpeg_ls.encode_buffer(unsigned(data).tobytes(), data.Rows, data.Columns, 1, data.BitsStored, error)
        replace_pixels(data, bytes(encoded), syntax).save_as(path)
    elif syntax == JPEGBaseline8Bit:
        data = pydicom.dcmread(path)
        jpeg = io.BytesIO()
        Image.fromarray(unsigned(data)).save(jpeg, "JPEG", quality=92)
        replace_pixels(data, jpeg.getvalue(), syntax).save_as(path)
    elif syntax == RLELossless:
        data = pydicom.dcmread(path)
        replace_pixels(data, rle(data), syntax).save_as(path)
    else:
        compress_by_gdcm(path, syntax)


def rle(data: Dataset) -> bytes:
    """Return the uncompressed pixels of an object in DICOM RLE (PS3.5 annex G); gdcm's and pydicom's encoders fail on some."""
    samples = data.SamplesPerPixel
    cells = np.frombuffer(data.PixelData, np.uint8)[: data.Rows * data.Columns * samples * data.BitsAllocated // 8]
    planes = cells.reshape(data.Rows, data.Columns, samples, data.BitsAllocated // 8)
    segments = []
    for sample in range(samples):
        for byte in reversed(range(planes.shape[3])):
            segment = b"".join(_pack_bits(row.tobytes()) for row in planes[:, :, sample, byte])
            segments.append(segment + bytes(len(segment) % 2))
    starts = np.cumsum([64, *map(len, segments)])[: len(segments)]
    header = np.zeros(16, "<u4")
    header[0], header[1 : 1 + len(segments)] = len(segments), starts
    return header.tobytes() + b"".join(segments)


@functools.lru_cache(maxsize=1)  # a drawn film may repeat its rows
def _pack_bits(row: bytes) -> bytes:
    packed = bytearray()
    for value, run in itertools.groupby(row):
        count = len(list(run))
        while count:
            part = min(count, 128)
            packed += bytes([257 - part if part > 1 else 0, value])
            count -= part
    return bytes(packed)


def unsigned(data: Dataset) -> np.ndarray:
    """Return the significant bits of the stored values as numbers without a sign, (rows, columns)."""
    kind = np.dtype(f"<u{data.BitsAllocated // 8}")
    cells = np.frombuffer(data.PixelData, kind, count=data.Rows * data.Columns).reshape(data.Rows, data.Columns)
    return np.asarray(cells & kind.type((1 << data.BitsStored) - 1))


def replace_pixels(data: Dataset, encoded: bytes, syntax: UID) -> Dataset:
    """Give an object one compressed picture."""
    data.file_meta.TransferSyntaxUID = syntax
    data["PixelData"] = pydicom.DataElement(0x7FE00010, "OB", encapsulate([encoded]), is_undefined_length=True)
    return data


def compress_by_gdcm(path: Path, syntax: UID) -> None:
    """Compress the pixels of an uncompressed file in place with gdcm."""
    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    kinds = gdcm.TransferSyntax
    change.SetTransferSyntax(kinds(kinds.GetTSType(str(syntax))))
    codec = None
    if syntax == JPEGExtended12Bit:
        codec = gdcm.JPEGCodec()
        codec.SetLossless(False)
        codec.SetQuality(92)
    elif syntax == JPEG2000:
        codec = gdcm.JPEG2000Codec()
        codec.SetReversible(False)
        codec.SetRate(0, 8)
    if codec is not None:
        change.SetUserCodec(codec)
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(path))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
