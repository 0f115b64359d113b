"""`cxr-edge`: the composition root of the device. Adapters are built and wired here and nowhere else.

Imports stand inside the commands on purpose: each process loads only what it uses, which on a small board is most of its
start-up time and memory.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

import edge
from edge.errors import CxrError

if TYPE_CHECKING:
    from edge.config import Device

F = TypeVar("F", bound=Callable[..., Any])


class _Sentences(click.Group):
    """Turns the errors that a person can act on into one sentence and exit status 2."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except CxrError as error:
            click.echo(f"cxr-edge: {error}", err=True)
        except OSError as error:
            where = f" ({error.filename})" if error.filename else ""
            click.echo(f"cxr-edge: the system says: {error.strerror or error}{where}", err=True)
        return ctx.exit(2)


@click.group(cls=_Sentences)
@click.version_option(edge.__version__, prog_name="cxr-edge")
def main() -> None:
    """Chest X-rays read beside the machine that makes them. A research aid; never the only basis of a decision."""
    # No linear algebra is done here; its idle threads would cost memory, and make fork unsafe.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def _with_config(command: F) -> F:
    option = click.option("--config", "config_path", type=click.Path(path_type=Path), required=True, help="device.toml")
    return option(command)


def _as_process(command: F) -> F:
    """Options of a long-running process; --parent is set by `cxr-edge run`, so that nothing survives its supervisor."""
    return _with_config(click.option("--parent", type=int, default=None, hidden=True)(command))


def _begin(name: str, config_path: Path, parent: int | None) -> Device:
    import logging

    from edge.config import load_config
    from edge.lifecycle import end_with

    logging.basicConfig(level=logging.INFO, format=f"cxr-{name}: %(message)s", stream=sys.stderr)
    if parent is not None:
        end_with(parent)
    return load_config(config_path)


@main.command()
@_with_config
def run(config_path: Path) -> None:
    """Run the whole device: watch, infer and relay under one supervisor."""
    import logging

    from edge.config import load_config
    from edge.lifecycle import Stop, only_one
    from edge.supervisor import Supervisor, own_command

    logging.basicConfig(level=logging.INFO, format="cxr-run: %(message)s", stream=sys.stderr)
    device = load_config(config_path)
    stop = Stop()
    with only_one(Path(device.state), "run"):
        options = ("--config", str(config_path), "--parent", str(os.getpid()))
        Supervisor({name: own_command(name, *options) for name in ("watch", "infer", "relay")}).run(stop)


@main.command()
@_as_process
def watch(config_path: Path, parent: int | None) -> None:
    """Take finished files from the watched folder into the spool."""
    device = _begin("watch", config_path, parent)
    from edge.lifecycle import Stop, only_one
    from edge.spool import Spool
    from edge.watch import FolderWatch, watch_forever

    stop = Stop()
    with only_one(Path(device.state), "watch"):
        if not Path(device.watch.folder).is_dir():
            raise CxrError(f"The watched folder {device.watch.folder} is not there. Make it, or mount the disk that holds it.")
        watch_forever(FolderWatch(device.watch, Spool(Path(device.state))), device.watch, stop)


@main.command()
@_as_process
def infer(config_path: Path, parent: int | None) -> None:
    """Turn each file of the spool into one committed outcome."""
    device = _begin("infer", config_path, parent)
    from edge.decoder import Decoder
    from edge.lifecycle import Stop, only_one

    stop = Stop()
    with only_one(Path(device.state), "infer"):
        decoder = Decoder(device.decode)  # first, so that it starts on another core while the model is loaded here
        try:
            _infer(device, decoder, stop)
        finally:
            decoder.close()


def _infer(device: Device, decoder: Any, stop: Any) -> None:
    import apsw

    from edge.bundle import load_bundle
    from edge.infer import Inference, Trials, infer_forever
    from edge.manifest import SHIPPED
    from edge.outbox import Outbox
    from edge.outcomes import OutcomeWriter
    from edge.pseudonym import load_site_key
    from edge.spool import Spool

    state = Path(device.state)
    bundle = load_bundle(Path(device.model.bundle) if device.model.bundle else SHIPPED, threads=device.model.threads)
    outbox = Outbox(state / "outbox.db", device.device)
    writer = OutcomeWriter(device, load_site_key(Path(device.site_key)), bundle.manifest, outbox.epoch)
    spool = Spool(state)
    inference = Inference(spool, decoder, bundle, outbox, writer, device.model.threshold)
    trials = Trials(state / "in-hand")
    try:
        infer_forever(inference, spool, trials, stop, device.storage.keep_images_mb * 2**20)
    except apsw.Error as error:
        raise CxrError(f"The outbox cannot be written ({error}). Nothing is lost: the file stays in the spool.") from None
    finally:
        trials.close()
        outbox.close()


@main.command()
@_as_process
def relay(config_path: Path, parent: int | None) -> None:
    """Deliver outcomes to the centre and take its receipts."""
    device = _begin("relay", config_path, parent)
    import logging

    import apsw

    from edge.lifecycle import Stop, only_one
    from edge.manifest import SHIPPED, read_manifest
    from edge.mqtt import PahoLink
    from edge.outbox import Outbox
    from edge.relay import Relay
    from edge.status import StatusWriter

    stop = Stop()
    with only_one(Path(device.state), "relay"):
        outbox = Outbox(Path(device.state) / "outbox.db", device.device)
        try:
            manifest = read_manifest(Path(device.model.bundle) if device.model.bundle else SHIPPED)
        except CxrError as error:
            logging.error("%s", error)  # what waits is delivered all the same
            manifest = None
        try:
            Relay(
                device,
                outbox,
                StatusWriter(device, manifest, outbox),
                lambda will_topic, will: PahoLink(device.relay, device.device, will_topic, will),
            ).run(stop)
        except apsw.Error as error:
            raise CxrError(f"The outbox cannot be used ({error}). Nothing is lost; delivery goes on when it can be.") from None
        finally:
            outbox.close()


@main.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="one JSON object a line")
@click.option("--bundle", type=click.Path(path_type=Path), default=None, help="model bundle instead of the shipped one")
@click.option("--threshold", type=click.FloatRange(0, 1), default=None, help="abstain below this probability")
def classify(files: tuple[Path, ...], as_json: bool, bundle: Path | None, threshold: float | None) -> None:
    """Read FILES once, from decoding to decision, without broker or outbox."""
    from edge.config import Decode
    from edge.decoder import Decoder

    decoder = Decoder(Decode())
    try:
        from edge.bundle import load_bundle
        from edge.classify_files import classify_file, to_json, to_text
        from edge.manifest import SHIPPED

        loaded = load_bundle(bundle or SHIPPED)
        failed = 0
        for file in files:
            reading = classify_file(file, decoder, loaded, threshold)
            click.echo(to_json(reading) if as_json else to_text(reading))
            failed += reading.status == "failed"
        if not as_json:
            from edge.decide import AID

            click.echo(AID)
    finally:
        decoder.close()
    if failed:
        sys.exit(1)


@main.command()
@_with_config
@click.option("--json", "as_json", is_flag=True, help="one JSON object a line")
@click.option("--all", "everything", is_flag=True, help="also what has its receipt")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True)
def outbox(config_path: Path, as_json: bool, everything: bool, limit: int) -> None:
    """Show what waits for the centre's receipt."""
    from edge.config import load_config
    from edge.listing import listing_lines
    from edge.outbox import Outbox

    device = load_config(config_path)
    path = Path(device.state) / "outbox.db"
    if not path.exists():
        raise CxrError(f"There is no outbox at {path} yet; `cxr-edge run` makes it.")
    for line in listing_lines(Outbox(path, device.device, read_only=True), limit, everything=everything, as_json=as_json):
        click.echo(line)


@main.command()
@_with_config
def check(config_path: Path) -> None:
    """Say in plain words what would stop the device from working; exit status 1 if something would."""
    from edge.check import check_device
    from edge.config import load_config

    findings = list(check_device(load_config(config_path)))
    for finding in findings:
        mark = "ok     " if finding.ok else "PROBLEM" if finding.fatal else "note   "
        click.echo(f"{mark} {finding.subject}: {finding.text}")
    sys.exit(any(not finding.ok and finding.fatal for finding in findings))


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--device", required=True, help="name of this device: letters, digits, - and _")
@click.option("--facility", required=True, help="name of the clinic")
@click.option("--broker", default="mqtt://127.0.0.1:1883", show_default=True, help="where results go")
def init(folder: Path, device: str, facility: str, broker: str) -> None:
    """Write a device.toml, a site key and the folders for one device into FOLDER."""
    from edge.setup_device import set_up

    click.echo(set_up(folder, device, facility, broker))


if __name__ == "__main__":
    main(prog_name="cxr-edge")
