"""`cxr-export`: the composition root. TensorFlow is imported only by the commands that train."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec
from PIL import Image

from export.bundle import CARD_NAME, REPORT_NAME, write_bundle
from export.card import model_card, reference_page
from export.dataset import CLASSES, load_pixels, read_dataset, some_of_each, targets
from export.errors import ExportError, ReportError, WeightsError
from export.phantom import phantom, random_opacities
from export.predictions import write_predictions

VERSION = "0.2.0"

EYES = Path("weights/mobilenet_v2_0.35_224_imagenet_no_top.weights.h5")
"""Where the shared data has them, under the folder of the data."""

_folder = click.Path(file_okay=False, path_type=Path)
_file = click.Path(dir_okay=False, path_type=Path)


class _Sentences(click.Group):
    """Turns the errors that a person can act on into one sentence and exit status 2."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as error:
            click.echo(
                f"cxr-export: {error.name} is not installed. Run: pip install 'cxr-edge[export]' (or `make test`).", err=True
            )
        except ExportError as error:
            click.echo(f"cxr-export: {error}", err=True)
        except OSError as error:
            where = f" ({error.filename})" if error.filename else ""
            click.echo(f"cxr-export: the system says: {error.strerror or error}{where}", err=True)
        return ctx.exit(2)


@click.group(cls=_Sentences)
def main() -> None:
    """Make and describe model bundles for cxr-edge."""


@main.command()
@click.option("--data", type=_folder, required=True, help="Folder of the labelled X-rays, one folder with a manifest.csv a set.")
@click.option("--out", type=_folder, required=True, help="Bundle folder to write, such as edge/models/chest.")
@click.option("--page", type=_file, default=None, help="Also write the reference page here, such as docs/reference/network.md.")
@click.option("--seed", type=int, default=1, show_default=True)
@click.option("--epochs", type=click.IntRange(1), default=None, help="Fewer for a quick trial, of a worse model.")
@click.option("--weights", type=_file, default=None, help="Of MobileNetV2 0.35 without its top; without it, in DATA/weights.")
@click.option("--predictions", "predicted", type=_file, default=None, help="Also write what every fold said, for `evaluate`.")
def chest(
    data: Path, out: Path, page: Path | None, seed: int, epochs: int | None, weights: Path | None, predicted: Path | None
) -> None:
    """Train, quantize, calibrate, cross-validate and bundle the chest model."""
    from export.chest import make_chest
    from export.train import Recipe

    recipe = Recipe() if epochs is None else Recipe(epochs=epochs)
    made = make_chest(data, recipe, weights=weights or data / EYES, seed=seed, say=click.echo)
    write_bundle(out, made.shipped, made.report, version=VERSION)
    if predicted is not None:
        predicted.parent.mkdir(parents=True, exist_ok=True)
        write_predictions(predicted, made.predictions)
    if page is not None:
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(reference_page(made.report), encoding="utf-8")
    click.echo(f"wrote {out}")


@main.command()
@click.option("--bundle", type=_folder, required=True, help="Bundle folder with a report.json.")
@click.option("--page", type=_file, required=True, help="Reference page to write, such as docs/reference/network.md.")
def pages(bundle: Path, page: Path) -> None:
    """Write the model card and the reference page again from a bundle's report."""
    report = _report(bundle)
    (bundle / CARD_NAME).write_text(model_card(report), encoding="utf-8")
    page.write_text(reference_page(report), encoding="utf-8")


@main.command("try")
@click.argument("names", nargs=-1, required=True, metavar="NETWORK...")
@click.option("--data", type=_folder, required=True, help="Folder of the labelled X-rays.")
@click.option("--set", "dataset", default="darkcovid", show_default=True, help="Which of its data sets.")
@click.option("--pictures", type=click.IntRange(8), default=48, show_default=True, help="How many pictures, of all classes alike.")
@click.option("--steps", type=click.IntRange(1), default=12, show_default=True, help="Of training, eight pictures each.")
@click.option("--side", type=click.IntRange(32), default=None, help="Pixels on a side instead of the publication's.")
@click.option("--weights", multiple=True, metavar="BACKBONE=FILE", help="Start a backbone from weights; several times if need be.")
def try_command(
    names: tuple[str, ...], data: Path, dataset: str, pictures: int, steps: int, side: int | None, weights: tuple[str, ...]
) -> None:
    """Build each NETWORK, train it for some steps, convert it to int8 and compare; one JSON object a line."""
    from export.networks.catalog import find
    from export.trial import try_network

    chosen = [find(name) for name in names]
    files = dict(_named_file(text) for text in weights)
    for backbone in files:
        if not any(backbone in network.backbones for network in chosen):
            raise WeightsError(f"None of the chosen networks has a backbone {backbone}. `cxr-export networks` lists them.")
    samples = some_of_each(read_dataset(data, dataset), pictures, seed=1)
    for network in chosen:
        mine = {name: file for name, file in files.items() if name in network.backbones}
        for backbone in set(network.backbones) - set(mine):
            click.echo(f"{network.name}: {backbone} starts from random weights; --weights {backbone}=FILE gives others.", err=True)
        pixels = load_pixels(samples, side or network.side)
        trial = try_network(network, pixels, targets(samples), classes=len(CLASSES), steps=steps, weights=mine)
        click.echo(msgspec.json.encode(trial))


def _named_file(text: str) -> tuple[str, Path]:
    name, sign, file = text.partition("=")
    if not (name and sign and file):
        raise click.BadParameter(f"{text!r} is not BACKBONE=FILE", param_hint="--weights")
    return name, Path(file)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="one JSON object a line")
def networks(as_json: bool) -> None:
    """List the networks that can be trained: source, input, parameters, multiply-adds of one picture."""
    from export.legacy_keras import keras
    from export.networks.catalog import CATALOG, multiply_adds

    if not as_json:
        click.echo(f"{'name':<20} {'source':<28} {'input':<12} {'parameters':>12} {'GMAC':>8}  starts from ImageNet weights of")
    for network in CATALOG:
        keras.backend.clear_session()
        model = network.build(len(CLASSES))
        row = {
            "name": network.name,
            "source": network.source,
            "input": f"{network.side}x{network.side}x{network.channels}",
            "parameters": int(model.count_params()),
            "multiply_adds": multiply_adds(model),
            "backbones": list(network.backbones),
        }
        if as_json:
            click.echo(msgspec.json.encode(row))
        else:
            backbones = ", ".join(network.backbones) or "-"
            click.echo(
                f"{network.name:<20} {network.source:<28} {row['input']:<12} {row['parameters']:>12,} "
                f"{multiply_adds(model) / 1e9:>8.3f}  {backbones}"
            )


def _report(bundle: Path) -> dict[str, Any]:
    path = bundle / REPORT_NAME
    try:
        report: dict[str, Any] = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except OSError as error:
        raise ReportError(f"{path} cannot be read ({error.strerror}). `cxr-export chest` writes it into a bundle.") from None
    except msgspec.DecodeError as error:
        raise ReportError(f"{path} is damaged: {error}. Take the bundle again from where it was made.") from None
    if report.get("classes") != list(CLASSES):
        raise ReportError(
            f"{path} is of a model with the classes {report.get('classes')}; the pages are written for {list(CLASSES)}."
        )
    return report


@main.command("phantom")
@click.argument("file", type=_file)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--opacities", type=click.IntRange(0, 30), default=0, show_default=True)
@click.option("--size", type=(click.IntRange(16), click.IntRange(16)), default=(1024, 1024), help="Width and height in pixels.")
def phantom_command(file: Path, seed: int, opacities: int, size: tuple[int, int]) -> None:
    """Draw a synthetic chest radiograph into FILE (PNG)."""
    width, height = size
    Image.fromarray(phantom(seed, width=width, height=height, opacity=random_opacities(seed, opacities))).save(file)


@main.command("data")
@click.argument("folder", type=_folder)
@click.option("--layout", default="", help="Name of the layout, if it is not recognised; `docs/data.md` lists them.")
@click.option("--label", "labels", multiple=True, metavar="FOLDER=LABEL", help="What a class folder holds; empty leaves it out.")
@click.option("--expect", default="", metavar="SHA256", help="Fail unless the set has this SHA-256 (printed by an earlier run).")
@click.option("--manifest", type=_file, default=None, help="Also write what was read as a manifest.csv.")
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
    samples = read_all(folder, chosen, dict(_assignment(text) for text in labels))
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


def _assignment(text: str) -> tuple[str, str]:
    name, sign, label = text.partition("=")
    if not (name and sign):
        raise click.BadParameter(f"{text!r} is not FOLDER=LABEL", param_hint="--label")
    return name, label


@main.command("import-dicom")
@click.argument("folder", type=_folder)
@click.argument("labels", type=_file)
@click.argument("out", type=_folder)
@click.option("--key", type=_file, default=None, help="Key of the patient codes; made if it is not there. Default: OUT.key.")
@click.option("--source", default="", help="What the manifest calls this hospital. Default: the name of OUT.")
@click.option("--with-burned-in", is_flag=True, help="Take pictures that say that text is burned into them; it may be a name.")
def import_dicom_command(folder: Path, labels: Path, out: Path, key: Path | None, source: str, with_burned_in: bool) -> None:
    """Turn a DICOM export in FOLDER and the table LABELS into OUT, a folder with pictures and a manifest, and no names.

    LABELS is a CSV file with the column label and one of sop_instance_uid, file, accession_number.
    """
    from export.import_dicom import import_dicom, summary

    for line in summary(import_dicom(folder, labels, out, key=key, source=source, burned_in=with_burned_in), out):
        click.echo(line)
