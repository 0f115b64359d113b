"""The commands of `cxr-export` that write a report. What they do is imported when they run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from export.cli_options import FILE, FOLDER


@click.command("evaluate")
@click.argument("files", nargs=-1, type=FILE, metavar="PREDICTIONS.json...")
@click.option("--out", type=FOLDER, required=True, help="Folder for report.html, figures.json and the charts.")
@click.option("--network", "subject", default=None, help="Which network the page is about; the first one if not given.")
@click.option("--history", "histories", type=FILE, multiple=True, help="Epochs of a training; once for each network.")
@click.option("--compression", type=FILE, multiple=True, help="Sizes and speeds of a network's forms; once for each network.")
@click.option("--explained", type=FILE, default=None, help="How much heat lies inside the lungs.")
@click.option("--samples", type=FILE, default=None, help="Sample pictures with heat.")
@click.option("--card", type=FILE, default=None, help="Texts of the model card; else they come from the bundle.")
@click.option("--bundle", type=FOLDER, default=None, help="Bundle for the card and --external; the shipped one if not given.")
@click.option("--external", type=FOLDER, default=None, help="Labelled folder with a manifest.csv that nothing was learned from.")
def evaluate_command(files: tuple[Path, ...], out: Path, **options: Any) -> None:
    """Write one page of what a network can and cannot do, from PREDICTIONS and what is given beside them."""
    from export.report.command import evaluate
    from export.report.page import PAGE_NAME
    from export.report.words import span

    found = evaluate(files, out, arguments=sys.argv[1:], **options)
    score = found.main.score
    click.echo(f"{found.subject}: {score.pictures} pictures of {score.patients} patients, accuracy {span(score.accuracy)}")
    click.echo(f"wrote {out / PAGE_NAME}")


@click.command("report")
@click.option("--quick", is_flag=True, required=True, help="The shipped bundle and small, briefly trained networks; some minutes.")
@click.option("--data", type=FOLDER, required=True, help="Folder of the labelled X-rays, one folder with a manifest.csv a set.")
@click.option("--out", type=FOLDER, required=True, help="Folder for report.html, figures.json, the charts and what they are from.")
@click.option("--bundle", type=FOLDER, default=None, help="The bundle that the page is about; the shipped one if not given.")
def report_command(quick: bool, data: Path, out: Path, bundle: Path | None) -> None:
    """Score a bundle on patients it has not seen, train small networks beside it, and write the page."""
    from export.report.page import PAGE_NAME
    from export.report.quick import quick_report
    from export.report.words import span

    found = quick_report(data, out, bundle=bundle, say=lambda line: click.echo(line, err=True), arguments=sys.argv[1:])
    score = found.main.score
    click.echo(f"{found.subject}: {score.pictures} pictures of {score.patients} patients, accuracy {span(score.accuracy)}")
    click.echo(f"wrote {out / PAGE_NAME}")


REPORT_COMMANDS = (evaluate_command, report_command)
