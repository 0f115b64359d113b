"""The commands of `cxr-export` about networks: what there is, and what becomes of one. TensorFlow comes when they run."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from export.cli_options import FILE, FOLDER, named_file
from export.dataset import CLASSES, load_pixels, some_of_each, targets
from export.errors import WeightsError
from export.layouts.registry import read_folder
from export.phantom import phantom, random_opacities


@click.command("networks")
@click.option("--json", "as_json", is_flag=True, help="one JSON object a line")
def networks_command(as_json: bool) -> None:
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


@click.command("try")
@click.argument("names", nargs=-1, required=True, metavar="NETWORK...")
@click.option("--data", type=FOLDER, required=True, help="Folder of the labelled X-rays.")
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
    files = dict(named_file(text) for text in weights)
    for backbone in files:
        if not any(backbone in network.backbones for network in chosen):
            raise WeightsError(f"None of the chosen networks has a backbone {backbone}. `cxr-export networks` lists them.")
    samples = some_of_each(read_folder(data / dataset), pictures, seed=1)
    for network in chosen:
        mine = {name: file for name, file in files.items() if name in network.backbones}
        for backbone in set(network.backbones) - set(mine):
            click.echo(f"{network.name}: {backbone} starts from random weights; --weights {backbone}=FILE gives others.", err=True)
        pixels = load_pixels(samples, side or network.side)
        trial = try_network(network, pixels, targets(samples), classes=len(CLASSES), steps=steps, weights=mine)
        click.echo(msgspec.json.encode(trial))


@click.command("compress")
@click.argument("network")
@click.option("--data", type=FOLDER, required=True, help="Folder of the labelled X-rays, one folder with a manifest.csv a set.")
@click.option(
    "--set", "sets", multiple=True, default=("darkcovid",), show_default=True, help="Which of its data sets; several times."
)
@click.option("--weights", type=FILE, default=None, help="Weights for a NETWORK of the catalogue; without, they are random.")
@click.option("--epochs", type=click.IntRange(1), default=4, show_default=True, help="Of each fine-tuning.")
@click.option("--kernels", type=click.Choice(["pointwise", "all"]), default="pointwise", show_default=True, help="What is pruned.")
@click.option("--seed", type=int, default=7, show_default=True, help="Of the parts by patient: that of the network's training.")
@click.option(
    "--splits", type=FILE, default=None, help="Folds that `chest` or `crossval` wrote; the last one's test part is tested."
)
@click.option("--pictures", type=click.IntRange(16), default=None, help="At most so many to fine-tune on, for a quick look.")
@click.option("--out", type=FILE, default=None, help="Also write the table here, as JSON.")
def compress_command(
    network: str,
    data: Path,
    sets: tuple[str, ...],
    weights: Path | None,
    epochs: int,
    kernels: str,
    seed: int,
    splits: Path | None,
    pictures: int | None,
    out: Path | None,
) -> None:
    """Prune and quantize NETWORK in every way; print what each costs and brings.

    NETWORK is a bundle of ours, a folder of `cxr-export train`, a file of Keras or a name of the catalogue.
    """
    from export.compress.command import compress
    from export.compress.table import text, write

    table = compress(
        network, data, sets, weights=weights, epochs=epochs, kernels="all" if kernels == "all" else "pointwise", seed=seed,
        splits=splits, limit=pictures, say=lambda line: click.echo(line, err=True),
    )  # fmt: skip
    click.echo(text(table))
    if out is not None:
        write(out, table)


@click.command("onnx")
@click.argument("network")
@click.option("--weights", type=FILE, default=None, help="Weights for a NETWORK of the catalogue; without, they are random.")
@click.option("--out", type=FILE, required=True, help="ONNX file to write.")
def onnx_command(network: str, weights: Path | None, out: Path) -> None:
    """Write NETWORK as an ONNX file, and compare the two on drawn pictures.

    NETWORK is a bundle of ours, a folder of `cxr-export train`, a file of Keras or a name of the catalogue.
    """
    import numpy as np

    from export.compress.command import load_network
    from export.onnx import agreement, to_onnx

    model, _ = load_network(network, weights)
    data = to_onnx(model)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(data)
    _, height, width, channels = model.input_shape
    drawn = [phantom(seed, width=width, height=height, opacity=random_opacities(seed, seed)) for seed in range(9)]
    same = agreement(data, model, np.repeat(np.stack(drawn)[..., np.newaxis], channels, axis=3))
    click.echo(
        f"wrote {out}, {len(data):,} bytes; onnxruntime names the same class for {same.same_class:.0%} of {same.pictures} drawn "
        f"pictures, largest difference {same.largest_difference:.1e}"
    )


NETWORK_COMMANDS = (networks_command, try_command, compress_command, onnx_command)
