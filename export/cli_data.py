"""The commands of `cxr-export` that read, check and draw X-rays. What they do is imported when they run."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec
from PIL import Image

from export.cli_options import FILE, FOLDER, assignment
from export.phantom import phantom, random_opacities


@click.command("data")
@click.argument("folder", type=FOLDER)
@click.option("--layout", default="", help="Name of the layout, if it is not recognised; `docs/data.md` lists them.")
@click.option("--label", "labels", multiple=True, metavar="FOLDER=LABEL", help="What a class folder holds; empty leaves it out.")
@click.option("--expect", default="", metavar="SHA256", help="Fail unless the set has this SHA-256 (printed by an earlier run).")
@click.option("--manifest", type=FILE, default=None, help="Also write what was read as a manifest.csv.")
@click.option("--thorough", is_flag=True, help="Also look for copies that were cropped anew; takes minutes.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def data_command(
    folder: Path, layout: str, labels: tuple[str, ...], expect: str, manifest: Path | None, thorough: bool, as_json: bool
) -> None:
    """Say what is in FOLDER: labels, patients, ages, views, what cannot be read, near duplicates across patients."""
    from export.inspection import inspect, lines, require_sound
    from export.layouts.registry import find_layout, read_all
    from export.manifest_file import write_manifest

    chosen = find_layout(folder, layout)
    samples = read_all(folder, chosen, dict(assignment(text, "--label", "FOLDER=LABEL") for text in labels))
    found = inspect(folder, chosen, samples, thorough=thorough)
    if as_json:
        click.echo(msgspec.json.encode(found))
    else:
        for line in lines(found):
            click.echo(line)
    require_sound(found, expect)
    if manifest is not None:
        write_manifest(manifest, samples)
        click.echo(f"wrote {manifest}", err=True)


@click.command("import-dicom")
@click.argument("folder", type=FOLDER)
@click.argument("labels", type=FILE)
@click.argument("out", type=FOLDER)
@click.option("--key", type=FILE, default=None, help="Key of the patient codes; made if it is not there. Default: OUT.key.")
@click.option("--source", default="", help="What the manifest calls this hospital. Default: the name of OUT.")
@click.option("--with-burned-in", is_flag=True, help="Take pictures that say that text is burned into them; it may be a name.")
def import_dicom_command(folder: Path, labels: Path, out: Path, key: Path | None, source: str, with_burned_in: bool) -> None:
    """Turn a DICOM export in FOLDER and the table LABELS into OUT, a folder with pictures and a manifest, and no names.

    LABELS is a CSV file with the column label and one of sop_instance_uid, file, accession_number.
    """
    from export.import_dicom import import_dicom, summary

    for line in summary(import_dicom(folder, labels, out, key=key, source=source, burned_in=with_burned_in), out):
        click.echo(line)


@click.command("phantom")
@click.argument("file", type=FILE)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--opacities", type=click.IntRange(0, 30), default=0, show_default=True)
@click.option("--size", type=(click.IntRange(16), click.IntRange(16)), default=(1024, 1024), help="Width and height in pixels.")
def phantom_command(file: Path, seed: int, opacities: int, size: tuple[int, int]) -> None:
    """Draw a synthetic chest radiograph into FILE (PNG)."""
    width, height = size
    Image.fromarray(phantom(seed, width=width, height=height, opacity=random_opacities(seed, opacities))).save(file)


DATA_COMMANDS = (data_command, import_dicom_command, phantom_command)
