"""`cxr-edge`: the composition root of the device. Adapters are built and wired here and nowhere else.

Imports stand inside the commands on purpose: each process loads only what it uses, which on a small board is most of its
start-up time and memory. For the same reason the command line is read with argparse (docs/adr/0006).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import edge
from edge.errors import CxrError

if TYPE_CHECKING:
    from edge.config import Device
    from edge.outbox import Outbox
    from edge.receipts import Receipts
    from edge.relay import Route
    from edge.status import StatusWriter

Arguments = argparse.Namespace
Command = Callable[[Arguments], None]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command. Ends with SystemExit: 0, 1 (the answer is no), 2 (an error that a person can act on)."""
    # No linear algebra is done here; its idle threads would cost memory, and make fork unsafe.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    reader = parser()
    given = sys.argv[1:] if arguments is None else arguments
    if not given:
        reader.print_help()
        sys.exit(2)
    chosen = reader.parse_args(given)
    try:
        chosen.command(chosen)
    except CxrError as error:
        sentence = str(error)
    except BrokenPipeError:
        # The reader of our output has gone, as after `| head`; nothing is left to say, also not when Python flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        sentence = f"the system says: {error.strerror or error}" + (f" ({error.filename})" if error.filename else "")
    except KeyboardInterrupt:
        sys.exit(130)
    else:
        sys.exit(0)
    sys.exit(_complain(sentence))


def parser() -> argparse.ArgumentParser:
    """Return what reads the command line; `command` in the result is the function to call with it."""
    top = argparse.ArgumentParser(
        "cxr-edge",
        description="Chest X-rays read beside the machine that makes them. "
        + "A research aid; never the only basis of a decision.",
    )
    top.add_argument("--version", action="version", version=f"cxr-edge {edge.__version__}")
    # Without `prog` argparse measures the terminal and loads four compression libraries to write a usage that nobody reads.
    commands = top.add_subparsers(metavar="COMMAND", required=True, prog="cxr-edge")

    def add(name: str, command: Command, text: str, *, config: bool = True) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text)
        made.set_defaults(command=command)
        if config:
            made.add_argument("--config", type=Path, required=True, metavar="FILE", help="device.toml")
        return made

    add("run", _run, "Run the whole device: watch, infer, relay and, where configured, dicom under one supervisor.")
    for name, command, text in (
        ("watch", _watch, "Take finished files from the watched folder into the spool."),
        ("infer", _infer, "Turn each file of the spool into one committed outcome."),
        ("relay", _relay, "Deliver outcomes to the centre and take its receipts."),
        ("dicom", _dicom, "Take what X-ray machines send over the network (C-STORE) into the spool."),
        ("page", _page, "Serve the clinic's own page: send an X-ray, read the answer, see the day's list."),
    ):
        # Set by `cxr-edge run`, so that nothing survives its supervisor.
        add(name, command, text).add_argument("--parent", type=int, help=argparse.SUPPRESS)

    classify = add("classify", _classify, "Read FILES once, from decoding to decision, without broker or outbox.", config=False)
    classify.add_argument("files", nargs="+", type=Path, metavar="FILES")
    classify.add_argument("--json", action="store_true", help="one JSON object a line")
    classify.add_argument("--bundle", type=Path, metavar="FOLDER", help="model bundle instead of the shipped one")
    classify.add_argument("--threshold", type=_share, metavar="SHARE", help="abstain below this probability, 0 to 1")

    outbox = add("outbox", _outbox, "Show what waits for the centre's receipt.")
    outbox.add_argument("--json", action="store_true", help="one JSON object a line")
    outbox.add_argument("--all", action="store_true", help="also what has its receipt")
    outbox.add_argument("--limit", type=_count, default=50, metavar="N", help="how many at most (50)")

    add("check", _check, "Say in plain words what would stop the device from working; exit status 1 if something would.")

    export = add("export", _export, "Write what waits for a receipt into one sealed file in FOLDER, to be carried to the centre.")
    export.add_argument("folder", type=Path, metavar="FOLDER")

    receipts = add("import-receipts", _import_receipts, "Take in the receipts that the centre has sealed in FILE.")
    receipts.add_argument("file", type=Path, metavar="FILE")

    init = add("init", _init, "Write a device.toml, a site key and the folders for one device into FOLDER.", config=False)
    init.add_argument("folder", type=Path, metavar="FOLDER")
    init.add_argument("--device", required=True, metavar="NAME", help="name of this device: letters, digits, - and _")
    init.add_argument("--facility", required=True, metavar="NAME", help="name of the clinic")
    init.add_argument("--page-port", type=_count, default=8080, metavar="PORT", help="of the clinic's own page (%(default)s)")
    init.add_argument("--broker", default="mqtt://127.0.0.1:1883", metavar="URL", help="where results go (%(default)s)")
    return top


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 0 to 1")
    return value


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 1 on")
    return int(text)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")


def _complain(sentence: str) -> int:
    sys.stderr.write(f"cxr-edge: {sentence}\n")
    return 2


def _begin(name: str, arguments: Arguments) -> Device:
    import logging

    from edge.config import load_config
    from edge.lifecycle import end_with

    logging.basicConfig(level=logging.INFO, format=f"cxr-{name}: %(message)s", stream=sys.stderr)
    if arguments.parent is not None:
        end_with(arguments.parent)
    return load_config(arguments.config)


def _run(arguments: Arguments) -> None:
    import logging

    from edge.config import load_config
    from edge.lifecycle import Stop, only_one
    from edge.supervisor import Supervisor, own_command

    logging.basicConfig(level=logging.INFO, format="cxr-run: %(message)s", stream=sys.stderr)
    device = load_config(arguments.config)
    stop = Stop()
    with only_one(Path(device.state), "run"):
        options = ("--config", str(arguments.config), "--parent", str(os.getpid()))
        names = ("watch", "infer", "relay", *(("dicom",) if device.dicom else ()), *(("page",) if device.page else ()))
        Supervisor({name: own_command(name, *options) for name in names}).run(stop)


def _watch(arguments: Arguments) -> None:
    device = _begin("watch", arguments)
    from edge.capacity import Capacity
    from edge.lifecycle import Stop, only_one
    from edge.spool import Spool
    from edge.watch import FolderWatch, watch_forever

    stop = Stop()
    with only_one(Path(device.state), "watch"):
        if not Path(device.watch.folder).is_dir():
            raise CxrError(f"The watched folder {device.watch.folder} is not there. Make it, or mount the disk that holds it.")
        spool = Spool(Path(device.state))
        capacity = Capacity(Path(device.state), device.storage.results_mb * 2**20)
        watch_forever(FolderWatch(device.watch, spool, capacity.has_room), device.watch, stop)


def _infer(arguments: Arguments) -> None:
    device = _begin("infer", arguments)
    from edge.decoder import Decoder
    from edge.lifecycle import Stop, only_one

    stop = Stop()
    with only_one(Path(device.state), "infer"):
        decoder = Decoder(device.decode)  # first, so that it starts on another core while the model is loaded here
        try:
            _infer_with(device, decoder, stop)
        finally:
            decoder.close()


def _infer_with(device: Device, decoder: Any, stop: Any) -> None:
    import apsw

    from edge.bundle import load_bundle
    from edge.capacity import LEAST_FREE
    from edge.infer import Inference, Trials, infer_forever
    from edge.local import LocalStore
    from edge.manifest import bundle_folder
    from edge.outcomes import OutcomeWriter
    from edge.pseudonym import load_site_key
    from edge.rebuild import outbox_of_infer
    from edge.requests import Requests
    from edge.spool import Spool

    state = Path(device.state)
    bundle = load_bundle(bundle_folder(device.model.bundle), threads=device.model.threads)
    key = load_site_key(Path(device.site_key))
    spool, local = Spool(state), LocalStore(state)
    trials = Trials(state / "in-hand")

    def tidy() -> None:
        spool.trim_done(device.storage.keep_images_mb * 2**20, keep_free=2 * LEAST_FREE)
        local.trim(device.storage.keep_local)

    try:
        with outbox_of_infer(state / "outbox.db", device.device, device.storage.results_mb * 2**20, stop) as outbox:
            writer = OutcomeWriter(device, key, bundle.manifest, outbox.epoch)
            inference = Inference(spool, decoder, bundle, outbox, writer, local, device.model.threshold)
            infer_forever(inference, spool, trials, stop, Requests(state), tidy)
    except apsw.Error as error:
        raise CxrError(f"The outbox cannot be written ({error}). Nothing is lost: the file stays in the spool.") from None
    finally:
        trials.close()


def _relay(arguments: Arguments) -> None:
    device = _begin("relay", arguments)
    import logging

    import apsw

    from edge.lifecycle import Stop, only_one
    from edge.manifest import bundle_folder, read_manifest
    from edge.rebuild import outbox_of_relay
    from edge.status import StatusWriter

    stop = Stop()
    with only_one(Path(device.state), "relay"):
        try:
            manifest = read_manifest(bundle_folder(device.model.bundle))
        except CxrError as error:
            logging.error("%s", error)  # what waits is delivered all the same
            manifest = None
        path, most = Path(device.state) / "outbox.db", device.storage.results_mb * 2**20
        try:
            with outbox_of_relay(path, device.device, most, stop) as outbox:
                _relay_with(device, outbox, StatusWriter(device, manifest, outbox), stop)
        except apsw.Error as error:
            raise CxrError(f"The outbox cannot be used ({error}). Nothing is lost; delivery goes on when it can be.") from None


def _relay_with(device: Device, outbox: Outbox, status: StatusWriter, stop: Any) -> None:
    from edge.mqtt import PahoLink
    from edge.relay import Relay

    def second(receipts: Receipts) -> Route:
        from edge.https import HttpsExchange
        from edge.sync import SyncRoute

        exchange = HttpsExchange(device.relay)
        return SyncRoute(outbox, receipts, lambda: status("online"), exchange, device.relay.https_after_s)

    Relay(
        device,
        outbox,
        status,
        lambda will_topic, will: PahoLink(device.relay, device.device, will_topic, will),
        second if device.relay.https else None,
    ).run(stop)


def _dicom(arguments: Arguments) -> None:
    device = _begin("dicom", arguments)
    if device.dicom is None:
        raise CxrError(f"{arguments.config} has no [dicom] table, so there is nobody to listen to.")
    from edge.capacity import Capacity
    from edge.dicom.arrival import Admission
    from edge.dicom.commitment import Judge, Requests
    from edge.dicom.listener import Listener, be_silent, limits_of
    from edge.dicom.peers import parse_peers
    from edge.dicom.reports import Reporter, connector
    from edge.lifecycle import Stop, only_one
    from edge.spool import Spool

    stop = Stop()
    be_silent()
    state = Path(device.state)
    peers = parse_peers(device.dicom.allow)
    limits = limits_of(device.dicom, peers)
    with only_one(state, "dicom"):
        spool = Spool(state)
        spool.remove_parts()
        max_bytes = device.decode.max_file_mb * 2**20
        capacity = Capacity(state, device.storage.results_mb * 2**20)
        admission = Admission(spool, max_bytes, capacity.has_room)
        judge = Judge(spool, state / "outbox.db", device.device)
        reporter = Reporter(Requests(state / "commitments"), judge, connector(device.dicom, peers, limits))
        Listener(device.dicom, peers, limits, admission, reporter).run(stop)


def _page(arguments: Arguments) -> None:
    device = _begin("page", arguments)
    if device.page is None:
        raise CxrError('There is no [page] in the configuration. Add it, with pin = "page.pin".')
    from edge.capacity import Capacity
    from edge.lifecycle import only_one
    from edge.local import LocalStore
    from edge.manifest import bundle_folder, read_manifest
    from edge.page.app import Parts, create_app
    from edge.page.film import Films
    from edge.page.health import Health
    from edge.page.reading import Reading
    from edge.page.server import serve
    from edge.page.session import Sessions, load_pin
    from edge.page.studies import Studies
    from edge.page.upload import Uploads
    from edge.requests import Requests
    from edge.spool import Spool

    state, pin = Path(device.state), load_pin(Path(device.page.pin))
    with only_one(state, "page"):
        reading = Reading(state / "outbox.db", device.device)
        capacity = Capacity(state, device.storage.results_mb * 2**20)
        try:
            manifest = read_manifest(bundle_folder(device.model.bundle))
        except CxrError:
            manifest = None  # `infer` says so; what was answered can still be read
        parts = Parts(
            facility=device.facility,
            studies=Studies(state, reading, LocalStore(state)),
            uploads=Uploads(state, Spool(state), device.decode.max_file_mb * 2**20),
            films=Films(device.decode),
            health=Health(state, reading, capacity, manifest),
            sessions=Sessions(pin),
            requests=Requests(state),
            has_room=capacity.has_room,
            secure=bool(device.page.certificate),
        )
        serve(create_app(parts), device.page)


def _classify(arguments: Arguments) -> None:
    from edge.config import Decode
    from edge.decoder import Decoder

    decoder = Decoder(Decode())  # first, so that it starts on another core while the model is loaded here
    try:
        from edge.classify_files import classify_files, to_json, to_text

        failed = False
        for reading in classify_files(arguments.files, decoder, arguments.bundle, arguments.threshold):
            _say(to_json(reading) if arguments.json else to_text(reading))
            sys.stdout.flush()
            failed |= reading.status == "failed"
        if not arguments.json:
            from edge.decide import AID

            _say(AID)
    finally:
        decoder.close()
    sys.exit(int(failed))


def _outbox(arguments: Arguments) -> None:
    from edge.config import load_config
    from edge.listing import listing_lines

    device = load_config(arguments.config)
    outbox = _existing_outbox(device, read_only=True)
    for line in listing_lines(outbox, arguments.limit, everything=arguments.all, as_json=arguments.json):
        _say(line)


def _export(arguments: Arguments) -> None:
    from edge.config import load_config
    from edge.usb import export_outcomes

    device = load_config(arguments.config)
    with contextlib.closing(_existing_outbox(device, read_only=True)) as outbox:
        path, count = export_outcomes(device, outbox, arguments.folder)
    if path is None:
        _say("Nothing waits for a receipt; nothing was written.")
    else:
        _say(f"Wrote {count} outcomes to {path}. They stay here until the centre's receipts are imported.")


def _import_receipts(arguments: Arguments) -> None:
    from edge.config import load_config
    from edge.usb import import_receipts

    device = load_config(arguments.config)
    with contextlib.closing(_existing_outbox(device, read_only=False)) as outbox:
        count = import_receipts(device, outbox, arguments.file)
        _say(f"{count} outcomes have their receipt now; {outbox.waiting()} wait.")


def _existing_outbox(device: Device, *, read_only: bool) -> Outbox:
    from edge.outbox import Outbox

    path = Path(device.state) / "outbox.db"
    if not path.exists():
        raise CxrError(f"There is no outbox at {path} yet; `cxr-edge run` makes it.")
    return Outbox(path, device.device, read_only=read_only)


def _check(arguments: Arguments) -> None:
    from edge.check import check_device
    from edge.config import load_config

    findings = list(check_device(load_config(arguments.config)))
    for finding in findings:
        mark = "ok     " if finding.ok else "PROBLEM" if finding.fatal else "note   "
        _say(f"{mark} {finding.subject}: {finding.text}")
    sys.exit(int(any(not finding.ok and finding.fatal for finding in findings)))


def _init(arguments: Arguments) -> None:
    from edge.setup_device import set_up

    _say(set_up(arguments.folder, arguments.device, arguments.facility, arguments.broker, arguments.page_port))


if __name__ == "__main__":
    main()
