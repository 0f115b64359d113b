"""The command of `cxr-export` that makes the quality gate of a bundle."""

from __future__ import annotations

from pathlib import Path

import click

from export.cli_options import FILE, FOLDER


@click.command("gate")
@click.argument("bundle", type=FOLDER)
@click.option("--data", type=FOLDER, required=True, help="Folder of the data sets that the bundle was made from.")
@click.option("--page", type=FILE, default=None, help="Also write the reference page here, such as docs/reference/quality.md.")
@click.option("--epochs", type=click.IntRange(1), default=None, help="Of each training; fewer for a quick trial, of a worse gate.")
def gate_command(bundle: Path, data: Path, page: Path | None, epochs: int | None) -> None:
    """Train the quality gate of BUNDLE, which `cxr-export chest` has made of the same data; measure it; write both into BUNDLE."""
    from export.gate import EPOCHS
    from export.gate_page import quality_page
    from export.make_gate import gate

    report = gate(bundle, data, click.echo, epochs=epochs or EPOCHS)
    if page is not None:
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(quality_page(report), encoding="utf-8")
    click.echo(f"wrote the gate into {bundle}")


GATE_COMMANDS = (gate_command,)
