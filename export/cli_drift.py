"""The command of `cxr-export` that measures the device's watch over drift."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from export.cli_options import FILE, FOLDER


@click.command("drift")
@click.argument("bundle", type=FOLDER)
@click.option("--data", type=FOLDER, required=True, help="Folder of the data sets that the bundle was made from.")
@click.option("--out", type=FILE, required=True, help="JSON file to write the figures to.")
@click.option("--once-in", type=click.IntRange(1000), default=None, help="As [commissioning] drift_once_in of device.toml.")
@click.option("--scale", type=click.FloatRange(0, 1, min_open=True), default=1.0, help="Share of the runs, for a quick trial.")
def drift_command(bundle: Path, data: Path, out: Path, once_in: int | None, scale: float) -> None:
    """Measure false alarms and delays of the watch over drift, with pictures that BUNDLE has not learned from."""
    from edge.config import Commissioning
    from export.drift import measure

    report = measure(bundle, data, once_in or Commissioning().drift_once_in, click.echo, scale=scale)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
    click.echo(f"wrote {out}")


DRIFT_COMMANDS = (drift_command,)
