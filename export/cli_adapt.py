"""The command of `cxr-export` that makes a bundle fit a hospital."""

from __future__ import annotations

from pathlib import Path

import click

from export.cli_options import FOLDER, assignment


@click.command("adapt")
@click.argument("bundle", type=FOLDER)
@click.argument("data", type=FOLDER)
@click.option("--out", type=FOLDER, required=True, help="Bundle folder to write; nothing may be in it.")
@click.option("--recalibrate", "mode", flag_value="recalibrate", default=True, help="Fit the thresholds alone (the default).")
@click.option("--fine-tune", "mode", flag_value="fine-tune", help="Train the last layers further before.")
@click.option("--layout", default="", help="Name of the layout, if it is not recognised; `docs/data.md` lists them.")
@click.option("--label", "labels", multiple=True, metavar="FOLDER=LABEL", help="What a class folder holds; empty leaves it out.")
@click.option("--without", multiple=True, metavar="CLASS", help="A class of the bundle that DATA has no picture of; several times.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of who goes into which part.")
def adapt_command(
    bundle: Path, data: Path, out: Path, mode: str, layout: str, labels: tuple[str, ...], without: tuple[str, ...], seed: int
) -> None:
    """Fit BUNDLE to a hospital by its own labelled pictures in DATA, and say on its test patients whether that made it better."""
    from export.adapt import adapt

    adapt(
        bundle,
        data,
        out,
        mode="fine-tune" if mode == "fine-tune" else "recalibrate",
        layout=layout,
        labels=dict(assignment(text, "--label", "FOLDER=LABEL") for text in labels),
        without=without,
        seed=seed,
        say=click.echo,
    )


ADAPT_COMMANDS = (adapt_command,)
