"""The commands that a person gives and that end by themselves, as `edge/cli.py` calls them. Imports stand inside on purpose."""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from edge.errors import CxrError

if TYPE_CHECKING:
    from PIL.Image import Image
    from pydicom.dataset import Dataset

    from edge.config import Device
    from edge.pixels.headers import Headers

Arguments = argparse.Namespace


def classify(arguments: Arguments) -> None:
    from edge.config import Decode
    from edge.pixels.decoder import Decoder

    decoder = Decoder(Decode())  # first, so that it starts on another core while the model is loaded here
    try:
        from edge.commands.classify_files import classify_files, to_json, to_text

        failed = False
        for reading in classify_files(arguments.files, decoder, arguments.bundle, arguments.threshold):
            _say(to_json(reading) if arguments.json else to_text(reading))
            sys.stdout.flush()
            failed |= reading.status == "failed"
        if not arguments.json:
            from edge.contract.reasons import AID

            _say(AID)
    finally:
        decoder.close()
    sys.exit(int(failed))


def outbox(arguments: Arguments) -> None:
    from edge.commands.listing import listing_lines
    from edge.config import load_config
    from edge.outbox.reader import OutboxReader

    device = load_config(arguments.config)
    with contextlib.closing(OutboxReader(_outbox_path(device), device.device)) as outbox:
        for line in listing_lines(outbox, arguments.limit, everything=arguments.all, as_json=arguments.json):
            _say(line)


def export(arguments: Arguments) -> None:
    from edge.config import load_config
    from edge.delivery.usb import export_outcomes
    from edge.outbox.reader import OutboxReader

    device = load_config(arguments.config)
    with contextlib.closing(OutboxReader(_outbox_path(device), device.device)) as outbox:
        path, count = export_outcomes(device, outbox, arguments.folder)
    if path is None:
        _say("Nothing waits for a receipt; nothing was written.")
    else:
        _say(f"Wrote {count} outcomes to {path}. They stay here until the centre's receipts are imported.")


def import_receipts(arguments: Arguments) -> None:
    from edge.config import load_config
    from edge.delivery.usb import import_receipts
    from edge.errors import OutboxDamaged
    from edge.outbox.file import damage_note
    from edge.outbox.writer import Outbox

    device = load_config(arguments.config)
    path = _outbox_path(device)
    with contextlib.closing(Outbox(path, device.device)) as outbox:
        try:
            count = import_receipts(device, outbox, arguments.file)
        except OutboxDamaged:
            damage_note(path).touch()
            raise
        _say(f"{count} outcomes have their receipt now; {outbox.waiting()} wait.")


def _outbox_path(device: Device) -> Path:
    path = Path(device.state) / "outbox.db"
    if not path.exists():
        raise CxrError(f"There is no outbox at {path} yet; `cxr-edge run` makes it.")
    return path


def check(arguments: Arguments) -> None:
    from edge.commands.check import check_device, check_software
    from edge.config import load_config

    device = load_config(arguments.config)
    findings = list(check_software(device) if arguments.software else check_device(device, arguments.config))
    for finding in findings:
        mark = "ok     " if finding.ok else "PROBLEM" if finding.fatal else "note   "
        _say(f"{mark} {finding.subject}: {finding.text}")
    failed = any(not finding.ok and finding.fatal for finding in findings)
    if arguments.to_the_centre:
        failed |= not _to_the_centre(device, arguments.timeout)
    sys.exit(int(failed))


def _to_the_centre(device: Device, timeout_s: float) -> bool:
    from edge.commands.acceptance import Journey, way_of

    arrived = False
    for step in Journey(device, way_of(device), timeout_s).steps():
        _say(f"{'ok     ' if step.ok else 'STUCK  '} {step.seconds:5.1f} s: {step.text}")
        sys.stdout.flush()
        arrived = step.ok
    return arrived


def commission(arguments: Arguments) -> None:
    from edge.commissioning.command import ask, lines
    from edge.config import load_config

    device = load_config(arguments.config)
    if arguments.release or arguments.silent:
        _say(ask(device, release=arguments.release, by=arguments.by, threshold=arguments.threshold))
    for line in lines(device):
        _say(line)


def key(arguments: Arguments) -> None:
    # All of it before root lays its rights down: the owner of the folder need not be able to read the software.
    from edge.clock import synchronised, wall_clock
    from edge.config import load_config
    from edge.enrolment.expected import require_expected
    from edge.enrolment.install import as_owner_of
    from edge.privacy import pseudonym
    from edge.privacy.key_paper import paper_lines, read_paper

    device = load_config(arguments.config)
    state, path = Path(device.state), Path(device.site_key)
    with as_owner_of(state if state in path.parents else path.parent):
        if arguments.do == "paper":
            for line in paper_lines(pseudonym.load_site_key(path), device.facility):
                _say(line)
            return
        if arguments.do == "restore":
            typed = read_paper(sys.stdin)
            require_expected(device, typed)
            present = pseudonym.adopt(path, typed)
        elif arguments.do == "rotate":
            present = pseudonym.rotate(path, wall_clock()[:10] if synchronised() else None)
        else:
            present = pseudonym.load_site_key(path)
        for one in present.all:
            _say(f"{one.key_id}  {'active ' if one is present else 'earlier'}" + (f"  since {one.since}" if one.since else ""))
        if arguments.do == "rotate":
            _say("Print it (cxr-edge key paper), and restore the paper on the other devices of this site.")
        if arguments.do != "show":
            _say("A running device goes on with the key that it began with: start it again.")


def deidentify(arguments: Arguments) -> None:
    import logging
    import warnings

    import numpy as np

    from edge.commands.deidentify import deidentify, recorded
    from edge.config import load_config
    from edge.contract.reasons import advice
    from edge.errors import ImageError
    from edge.network.bundle import load_bundle
    from edge.network.manifest import bundle_folder
    from edge.outbox.reader import OutboxReader
    from edge.pixels.decode import Limits
    from edge.pixels.preprocess import preprocess_image
    from edge.privacy.pseudonym import load_site_key

    warnings.simplefilter("ignore")  # pydicom quotes values of the old object, here and in its log
    logging.disable(logging.CRITICAL)
    device = load_config(arguments.config)
    site_key = load_site_key(Path(device.site_key))
    bundle = load_bundle(bundle_folder(device.model.bundle), threads=device.model.threads)
    limits = Limits(device.decode.max_bytes, device.decode.max_pixels)
    # Which outcome a film has; before the first start there is none.
    path = Path(device.state) / "outbox.db"
    outbox = OutboxReader(path, device.device) if path.exists() else None
    find = recorded(outbox, site_key) if outbox is not None else lambda source: None
    arguments.folder.mkdir(parents=True, exist_ok=True)
    failed = False

    def require_chest(image: Image, headers: Headers) -> None:
        bundle.scores(np.asarray(preprocess_image(image)), headers)

    try:
        for number, file in enumerate(arguments.files, 1):
            try:
                released = deidentify(file, site_key, require_chest, limits, find)
                target = arguments.folder / f"{released.data.SOPInstanceUID}.dcm"
                _save(released.data, target)
            except (ImageError, OSError) as error:
                failed = True
                why = advice(error.reason) if isinstance(error, ImageError) else _of_system(error)
                _say(f"{number}: not released. {why}")
                continue
            _say(f"{number}: {target}, {released.replaced:.0%} of the picture replaced")
    finally:
        if outbox is not None:
            outbox.close()
        _say("Look at every picture before you hand it on: faint writing over the chest may be left.")
    sys.exit(int(failed))


def _save(data: Dataset, target: Path) -> None:
    try:
        data.save_as(target, enforce_file_format=True)
    except OSError:
        target.unlink(missing_ok=True)  # half a file must not be handed on
        raise


def _of_system(error: OSError) -> str:
    """Return what the system says, without the name of the file, which may be a patient's."""
    return f"The system says: {error.strerror or type(error).__name__}."


def init(arguments: Arguments) -> None:
    from edge.commands.setup_device import set_up

    _say(set_up(arguments.folder, arguments.device, arguments.facility, arguments.broker, arguments.page_port))


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
