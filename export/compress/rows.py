"""The table of `cxr-export compress`, which `cxr-export evaluate --compression` reads."""

from __future__ import annotations

import msgspec

from export.predictions import Precision


class Interval(msgspec.Struct, frozen=True, kw_only=True):
    """A share, 0..1, with its 95% interval over patients."""

    value: float
    low: float
    high: float
    pictures: int
    patients: int


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One way of making the network smaller.

    name: what was done. precision: of the file. sparsity: share of zeros that was asked for in the pruned kernels; zeros: share in
    all kernels that it has. bytes: of the TFLite file; compressed_bytes: after zstd -19. agreement: share of pictures that get the
    class that the float32 file gives them, where there is one. agreement_own: that the float network gives them whose weights were
    converted (pruned, before it was quantized), and logit_difference: mean magnitude, from that one; none where only the file is
    at hand. milliseconds: median of one picture on one thread; ratio_to_p3: that by the one of P3's int8 file in the same minute.
    peak_memory: bytes by which a process grows. left_in_float: layers that are not int8 in a file that should be.
    """

    name: str
    precision: Precision
    sparsity: float = 0.0
    zeros: float
    bytes: int
    compressed_bytes: int
    accuracy: Interval
    agreement: float | None = None
    agreement_own: float | None = None
    logit_difference: float | None = None
    milliseconds: float
    ratio_to_p3: float
    peak_memory: int
    left_in_float: list[str] = []


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """network: its name. trained: false where its weights are random, so that only sizes and times mean something."""

    network: str
    trained: bool
    runtime: str
    p3_milliseconds: float
    rows: list[Row]
