"""`cxr-export`: the composition root. Commands stand here or, by topic, in export/cli_*.py; TensorFlow comes when one needs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec

from export.bundle import REPORT_NAME, write_bundle, write_card, write_report
from export.card import model_card, reference_page
from export.cli_adapt import ADAPT_COMMANDS
from export.cli_data import DATA_COMMANDS
from export.cli_drift import DRIFT_COMMANDS
from export.cli_gate import GATE_COMMANDS
from export.cli_networks import NETWORK_COMMANDS
from export.cli_options import FILE, FOLDER
from export.cli_report import REPORT_COMMANDS
from export.cli_training import TRAINING_COMMANDS
from export.dataset import CLASSES
from export.errors import ExportError, ReportError
from export.predictions import write_predictions

VERSION = "0.5.0"


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
@click.option("--data", type=FOLDER, required=True, help="Folder of the labelled X-rays, one folder with a manifest.csv a set.")
@click.option("--out", type=FOLDER, required=True, help="Bundle folder to write, such as edge/models/chest.")
@click.option("--page", type=FILE, default=None, help="Also write the reference page here, such as docs/reference/network.md.")
@click.option("--seed", type=int, default=1, show_default=True)
@click.option("--views", type=click.IntRange(1), default=None, help="Of each picture; fewer for a quick trial, of a worse model.")
@click.option("--weights", type=FILE, default=None, help="Of MobileNetV2 0.35 without its top; without it, in DATA/weights.")
@click.option("--predictions", "predicted", type=FILE, default=None, help="Also write what every fold said, for `evaluate`.")
@click.option("--splits", "recorded", type=FILE, default=None, help="Also write the folds of darkcovid, for `crossval --splits`.")
def chest(
    data: Path,
    out: Path,
    page: Path | None,
    seed: int,
    views: int | None,
    weights: Path | None,
    predicted: Path | None,
    recorded: Path | None,
) -> None:
    """Train, quantize, calibrate, cross-validate and bundle the chest model; its ONNX file is written beside the bundle.

    A gate that was there is removed, since it reads the traits of another network: `cxr-export gate` follows.
    """
    from export.chest import make_chest
    from export.networks.ours import WEIGHTS
    from export.onnx import to_onnx
    from export.reopen import reopened_bundle
    from export.train import Recipe

    recipe = Recipe() if views is None else Recipe(views=views)
    made = make_chest(data, recipe, weights=weights or data / WEIGHTS, seed=seed, say=click.echo)
    write_bundle(out, made.shipped, made.report, version=VERSION)
    beside = out.parent / f"{out.name}.onnx"
    beside.write_bytes(to_onnx(reopened_bundle(out)))
    if recorded is not None:
        recorded.parent.mkdir(parents=True, exist_ok=True)
        recorded.write_bytes(msgspec.json.format(msgspec.json.encode(made.plan)))
    if predicted is not None:
        predicted.parent.mkdir(parents=True, exist_ok=True)
        write_predictions(predicted, made.predictions)
    if page is not None:
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(reference_page(made.report), encoding="utf-8")
    click.echo(f"wrote {out} and {beside}")


@main.command()
@click.option("--bundle", type=FOLDER, required=True, help="Bundle folder with a report.json.")
@click.option("--page", type=FILE, required=True, help="Reference page to write, such as docs/reference/network.md.")
def pages(bundle: Path, page: Path) -> None:
    """Write the model card and the reference page again from a bundle's report."""
    report = _report(bundle)
    write_card(bundle, model_card(report))
    page.write_text(reference_page(report), encoding="utf-8")


@main.command()
@click.argument("bundle", type=FOLDER)
@click.option("--data", type=FOLDER, required=True, help="Folder of the data sets that the bundle was made from.")
@click.option("--page", type=FILE, required=True, help="Reference page to write, such as docs/reference/network.md.")
def runtimes(bundle: Path, data: Path, page: Path) -> None:
    """Measure BUNDLE in the runtime of 32-bit ARM again, of the patients that it has not seen; write report, card and page."""
    from export.second_runtime import of_bundle

    report = _report(bundle)
    report["shipped"]["other_runtime"] = of_bundle(bundle, data, click.echo)
    report["cross_validation"].pop("other_runtime", None)  # what earlier versions measured, of all folds
    write_report(bundle, report)
    write_card(bundle, model_card(report))
    page.write_text(reference_page(report), encoding="utf-8")


def _report(bundle: Path) -> dict[str, Any]:
    path = bundle / REPORT_NAME
    try:
        report: dict[str, Any] = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except OSError as error:
        raise ReportError(f"{path} cannot be read ({error.strerror}). `cxr-export chest` writes it into a bundle.") from None
    except msgspec.DecodeError as error:
        raise ReportError(f"{path} is damaged: {error}. Take the bundle again from where it was made.") from None
    if "adapted" in report:
        raise ReportError(f"{path} is of an adapted bundle, whose card `cxr-export adapt` has written; there is no page for it.")
    if report.get("classes") != list(CLASSES):
        raise ReportError(
            f"{path} is of a model with the classes {report.get('classes')}; the pages are written for {list(CLASSES)}."
        )
    return report


for _command in (
    *DATA_COMMANDS,
    *NETWORK_COMMANDS,
    *TRAINING_COMMANDS,
    *ADAPT_COMMANDS,
    *GATE_COMMANDS,
    *DRIFT_COMMANDS,
    *REPORT_COMMANDS,
):
    main.add_command(_command)


if __name__ == "__main__":
    main()
