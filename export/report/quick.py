"""The quick report: the shipped bundle on patients it has not seen, with controls, and small networks trained beside it.

Another stage is one more function in STAGES. Stages run in order and see what earlier ones have gathered.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from edge.network.manifest import SHIPPED
from export.compress.table import write as write_table
from export.predictions import write_predictions
from export.report.about import card_of, recorded_of
from export.report.bench import Gathered, Stage, make_bench
from export.report.command import opened
from export.report.figures import Figures
from export.report.page import Parts, write_report
from export.report.provenance import made
from export.report.stages.linear import linear_model
from export.report.stages.shipped import children, no_chests, shipped
from export.report.stages.trained import ours_briefly, p3_briefly

STAGES: tuple[Stage, ...] = (shipped, children, no_chests, linear_model, ours_briefly, p3_briefly)


def quick_report(
    data: Path,
    out: Path,
    *,
    bundle: Path | None = None,
    say: Callable[[str], None],
    arguments: Sequence[str] = (),
    stages: Sequence[Stage] = STAGES,
) -> Figures:
    """Run all stages; write the page into `out`, and beside it the parts, from which `cxr-export evaluate` makes the page again.

    Args:
        data: folder of the data sets.
        out: folder to write; pictures of the data sets get into it, so it belongs nowhere public.
        bundle: what the page is about; None for the shipped one.
        say: receives progress lines.
        arguments: of the command line, for the page.
        stages: what is run.

    Raises:
        DataError: if the pictures cannot be used.
        ReportError: if it is not known which pictures the bundle has not seen.
    """
    began = time.monotonic()
    folder = bundle or SHIPPED
    loaded = opened(folder)
    bench = make_bench(data, folder, loaded, say)
    say(f"{len(bench.samples)} pictures, {len(bench.split.test)} of them of patients that the bundle has not seen")
    gathered = Gathered()
    for stage in stages:
        stage(bench, gathered)
        say(f"{stage.__name__}: done after {time.monotonic() - began:.0f} s")
    card = msgspec.structs.replace(card_of(loaded.manifest), notes=gathered.notes)
    parts = Parts(
        card=card,
        histories=gathered.histories,
        compression=gathered.compression,
        explained=gathered.explained,
        samples=gathered.samples,
        refused=gathered.refused,
        recorded=recorded_of(loaded.manifest),
        notes=gathered.notes,
    )
    out.mkdir(parents=True, exist_ok=True)
    files = [out / "predictions.json"]
    write_predictions(files[0], gathered.predictions)
    (out / "card.json").write_bytes(msgspec.json.encode(card))
    for name in ("explained", "samples"):
        (out / f"{name}.json").write_bytes(msgspec.json.encode(getattr(gathered, name)))
    for name, history in gathered.histories.items():
        (out / f"history {name}.json").write_bytes(msgspec.json.encode(history))
    for table in gathered.compression:
        write_table(out / f"compression {table.network}.json", table)
    return write_report(out, gathered.predictions, parts, made("cxr-export", arguments, files))
