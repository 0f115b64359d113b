"""What each way of making a network smaller costs and brings: one row each, measured on the same pictures in the same minute."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from export.compress.centring import centred_if_possible
from export.compress.formats import PRECISIONS, Floats, Pictures, Runner, convert, keras_logits
from export.compress.pruning import Kernels, pruned, zero_share_of_all, zero_share_of_file
from export.compress.quantization_aware import quantization_aware
from export.compress.ranges import close_int8
from export.compress.rows import Interval, Row, Table
from export.compress.timing import interleaved, peak_memory
from export.legacy_keras import keras
from export.metrics import accuracy_interval
from export.networks.catalog import find
from export.predictions import Precision

_ZSTD_LEVEL = 19
REFERENCE = "p3"
"""The network whose int8 time every time is compared with: P3's, which needs no training for that."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Variant:
    """A file and the float network that it was made of; `own` is None where only the file is at hand."""

    name: str
    precision: Precision
    sparsity: float
    graph: bytes
    own: Any
    left_in_float: tuple[str, ...] = ()


@dataclass(frozen=True)
class Exam:
    """Pictures that no network here has learned from: shape (n, side, side, channels), class indexes (n,), patients (n,)."""

    pictures: Pictures
    truth: npt.NDArray[np.int64]
    patients: npt.NDArray[np.str_]


def variants(
    model: Any,
    representative: Pictures,
    fine_tune: Any,
    *,
    sparsities: Sequence[float] = (0.5, 0.8),
    kernels: Kernels = "pointwise",
    say: Say = lambda _: None,
) -> list[Variant]:
    """Make all files of one network.

    Args:
        model: Keras model of a fixed input size.
        representative: of the training part.
        fine_tune: such as `export.compress.distill.Distiller` with the centred network as teacher; has `steps` too.
        sparsities: to prune to; the first is also trained on with rounding (quantization-aware).
        kernels: what is pruned.
        say: receives progress lines.
    """
    made = [Variant(precision, precision, 0.0, convert(model, precision, representative), model) for precision in PRECISIONS]
    centre = centred_if_possible(model)
    made.append(Variant("int8, close", "int8", 0.0, close_int8(centre, representative), centre))
    say("float32, float16, dynamic, int8 written")
    aware = quantization_aware(centre, representative, fine_tune, keep_zeros=False)
    made.append(Variant("int8, aware", "int8", 0.0, aware.graph, centre, aware.left_in_float))
    say("trained with rounding")
    for place, sparsity in enumerate(sparsities):
        thin = pruned(centre, sparsity, fine_tune, fine_tune.steps, kernels=kernels)
        say(f"pruned to {sparsity:.0%}")
        graph = close_int8(thin, representative)
        made.append(Variant(f"{sparsity:.0%} zeros, int8, close", "int8", sparsity, graph, thin))
        if place == 0:
            aware = quantization_aware(thin, representative, fine_tune)
            made.append(Variant(f"{sparsity:.0%} zeros, int8, aware", "int8", sparsity, aware.graph, thin, aware.left_in_float))
            say("trained with rounding and zeros")
    return made


def measure(network: str, made: Sequence[Variant], exam: Exam, classes: int, *, trained: bool, rounds: int = 60) -> Table:
    """Measure all files, in turns (see `export.compress.timing`). Agreement is with the first float32 file, if there is one."""
    runners = {variant.name: Runner(variant.graph) for variant in made}
    given = dict.fromkeys(runners, exam.pictures[0])
    reference, picture = _reference()
    times = interleaved({**runners, REFERENCE: reference}, {**given, REFERENCE: picture}, rounds=rounds)
    logits = {name: runner.logits(exam.pictures) for name, runner in runners.items()}
    own = {id(variant.own): variant.own for variant in made if variant.own is not None}
    float32 = next((logits[variant.name] for variant in made if variant.precision == "float32"), None)
    expected = {key: keras_logits(model, exam.pictures) for key, model in own.items()}
    rows = [_row(variant, logits[variant.name], float32, expected.get(id(variant.own)), exam, classes, times) for variant in made]
    return Table(network=network, trained=trained, runtime=runtime(), p3_milliseconds=round(times[REFERENCE], 3), rows=rows)


def runtime() -> str:
    """Return the name and version of what runs the files."""
    from importlib.metadata import PackageNotFoundError, version

    for name in ("ai-edge-litert", "tflite-runtime"):
        try:
            return f"{name} {version(name)}"
        except PackageNotFoundError:
            continue
    return "unknown"


def text(table: Table) -> str:
    """Return the table as lines for people."""
    head = (
        f"{'':<36} {'bytes':>9} {'zstd':>9} {'zeros':>6}  {'accuracy (95%)':<22} {'as float32':>10} {'as own':>7} "
        f"{'logit diff':>10} {'ms':>7} {'of P3':>6} {'MiB':>6}"
    )
    lines = [head]
    for row in table.rows:
        accuracy = f"{row.accuracy.value:.3f} ({row.accuracy.low:.3f} to {row.accuracy.high:.3f})"
        lines.append(
            f"{row.name:<36} {row.bytes:>9,} {row.compressed_bytes:>9,} {row.zeros:>6.1%}  {accuracy:<22} "
            f"{_share(row.agreement):>10} {_share(row.agreement_own):>7} "
            f"{'-' if row.logit_difference is None else f'{row.logit_difference:.4f}':>10} {row.milliseconds:>7.2f} "
            f"{row.ratio_to_p3:>6.2f} {row.peak_memory / 2**20:>6.1f}"
        )
    lines.append(f"P3's int8 file: {table.p3_milliseconds:.2f} ms; {table.runtime}, one thread.")
    lines += [f"{row.name}: left in float: {', '.join(row.left_in_float)}" for row in table.rows if row.left_in_float]
    if not table.trained:
        lines.append("The weights are random: sizes and times are right, accuracy and agreement say nothing.")
    return "\n".join(lines)


def write(file: Path, table: Table) -> None:
    """Write it as JSON; folders are made."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(msgspec.json.format(msgspec.json.encode(table), indent=2) + b"\n")


def compressed(data: bytes) -> int:
    """Return how many bytes are left of a file after zstd -19, what a device downloads."""
    import zstandard

    return len(zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compress(data))


def _row(
    variant: Variant,
    logits: Floats,
    float32: Floats | None,
    expected: Floats | None,
    exam: Exam,
    classes: int,
    times: dict[str, float],
) -> Row:
    answer = np.asarray(logits.argmax(axis=1), dtype=np.int64)
    estimate = accuracy_interval(exam.truth, answer, classes, exam.patients)
    return Row(
        name=variant.name,
        precision=variant.precision,
        sparsity=variant.sparsity,
        zeros=round(zero_share_of_file(variant.graph) if variant.own is None else zero_share_of_all(variant.own), 4),
        bytes=len(variant.graph),
        compressed_bytes=compressed(variant.graph),
        accuracy=Interval(
            value=round(estimate.value, 4),
            low=round(estimate.low, 4),
            high=round(estimate.high, 4),
            pictures=estimate.pictures,
            patients=estimate.patients,
        ),
        agreement=None if float32 is None else _same(logits, float32),
        agreement_own=None if expected is None else _same(logits, expected),
        logit_difference=None if expected is None else round(float(np.abs(logits - expected).mean()), 5),
        milliseconds=round(times[variant.name], 3),
        ratio_to_p3=round(times[variant.name] / times[REFERENCE], 3),
        peak_memory=peak_memory(variant.graph),
        left_in_float=list(variant.left_in_float),
    )


def _same(first: Floats, second: Floats) -> float:
    """Return the share of pictures that get the same class from both."""
    return round(float((first.argmax(axis=1) == second.argmax(axis=1)).mean()), 4)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _reference() -> tuple[Runner, npt.NDArray[np.uint8]]:
    network = find(REFERENCE)
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (4, network.side, network.side, network.channels), dtype=np.uint8)
    keras.utils.set_random_seed(0)
    return Runner(convert(network.build(3), "int8", noise)), noise[0]
