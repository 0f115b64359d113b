"""The processes of the device, as `edge/cli.py` starts them: each builds what it is made of and runs until told to stop.

Imports stand inside on purpose: a process loads only what it uses.
"""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.errors import CxrError

if TYPE_CHECKING:
    from edge.config import Device
    from edge.unattended.notify import Notifier

Arguments = argparse.Namespace

LONGEST_S = 60.0
"""One wait for a disk or a database that is slow and works, with room to spare; after that, and what a process adds, it hangs."""


def begin(name: str, arguments: Arguments) -> Device:
    from edge.config import load_config
    from edge.unattended.lifecycle import end_with
    from edge.unattended.logs import set_up

    if arguments.parent is not None:
        end_with(arguments.parent)
    device = load_config(arguments.config)
    set_up(name, None if arguments.parent is None else Path(device.state) / "log")
    return device


def names(device: Device) -> list[str]:
    """Return the processes that a device runs: the first three always, the others where they are configured."""
    tables = {"dicom": device.dicom, "pacs": device.pacs, "page": device.page}
    return ["watch", "infer", "relay", *(name for name, table in tables.items() if table is not None)]


def watch(arguments: Arguments) -> None:
    device = begin("watch", arguments)
    from edge.capacity import Capacity
    from edge.intake.spool import Spool
    from edge.intake.watch import FolderWatch, watch_forever
    from edge.unattended.lifecycle import Stop, only_one
    from edge.unattended.notify import Notifier

    notifier = Notifier.of_environment(LONGEST_S)
    stop = Stop(notifier.stopping)
    with only_one(Path(device.state), "watch"):
        if not Path(device.watch.folder).is_dir():
            raise CxrError(f"The watched folder {device.watch.folder} is not there. Make it, or mount the disk that holds it.")
        spool = Spool(Path(device.state), notifier.progress)
        spool.remove_half_copied()
        capacity = Capacity(Path(device.state), device.storage.results_bytes)
        max_bytes = device.decode.max_bytes
        watch = FolderWatch(device.watch, spool, capacity.has_room, max_bytes)
        notifier.ready("takes what is put into the watched folder")
        watch_forever(watch, device.watch, stop, notifier.progress)


def infer(arguments: Arguments) -> None:
    device = begin("infer", arguments)
    from edge.commands.key_wait import wait_for_site_key
    from edge.pixels.decoder import Decoder
    from edge.pixels.turn import turn_of
    from edge.unattended.lifecycle import Stop, only_one
    from edge.unattended.notify import Notifier

    # A decoder that dies late and one that hangs, for the same picture, and a disk that is slow to take it.
    notifier = Notifier.of_environment(2 * device.decode.timeout_s + LONGEST_S)
    stop = Stop(notifier.finishing)
    # Before the lock is taken: who asks whether X-rays are read sees that they are not.
    if not wait_for_site_key(device, arguments.config, stop, notifier):
        return
    with only_one(Path(device.state), "infer"):
        # First, so that it starts on another core while the model is loaded here.
        decoder = Decoder(device.decode, turn_of(Path(device.state)))
        try:
            _infer_with(device, decoder, stop, notifier)
        finally:
            decoder.close()


def _infer_with(device: Device, decoder: Any, stop: Any, notifier: Notifier) -> None:
    import apsw

    from edge.commissioning.silence import Site, open_silence
    from edge.infer.inference import Inference
    from edge.infer.local import LocalStore
    from edge.infer.loop import infer_forever
    from edge.infer.outcomes import OutcomeWriter
    from edge.infer.trials import Trials
    from edge.intake.spool import LEAST_FREE, Spool
    from edge.network.bundle import load_bundle
    from edge.network.manifest import bundle_folder, digest_of
    from edge.outbox.rebuild import outbox_of_infer
    from edge.pacs.cursor import begin
    from edge.privacy.pseudonym import load_site_key
    from edge.requests import Requests
    from edge.unattended.tally import TallyFile

    state, folder = Path(device.state), bundle_folder(device.model.bundle)
    bundle = load_bundle(folder, threads=device.model.threads)
    site = Site(device.commissioning, digest_of(folder), bundle.manifest.threshold, device.model.threshold)
    key = load_site_key(Path(device.site_key))
    spool, local = Spool(state, notifier.progress), LocalStore(state, for_pacs=device.pacs is not None)
    trials, tally, requests = Trials(state / "in-hand"), TallyFile(state), Requests(state)

    def tidy() -> None:
        spool.trim_done(device.storage.keep_images_mb * 2**20, keep_free=2 * LEAST_FREE)
        local.trim(device.storage.keep_local)

    try:
        most, progress = device.storage.results_bytes, notifier.progress
        with outbox_of_infer(state / "outbox.db", device.device, most, stop, progress) as outbox:
            if device.pacs is not None:
                begin(state, outbox)
            writer = OutcomeWriter(device, key, bundle.manifest, outbox.epoch)
            with contextlib.closing(open_silence(state, site, outbox)) as silence:
                told = (trials.committed, tally.note, requests.keep_unmet)
                inference = Inference(spool, decoder, bundle, outbox, writer, local, silence, *told)
                notifier.ready("reads what is in the spool")
                infer_forever(inference, spool, trials, stop, requests, tidy, progress)
    except apsw.Error as error:
        raise CxrError(f"The outbox cannot be written ({error}). Nothing is lost: the file stays in the spool.") from None
    finally:
        trials.close()
        tally.close()


def dicom(arguments: Arguments) -> None:
    device = begin("dicom", arguments)
    if device.dicom is None:
        raise CxrError(f"{arguments.config} has no [dicom] table, so there is nobody to listen to.")
    from edge.capacity import Capacity
    from edge.pixels.lean_pydicom import lean_pydicom

    with lean_pydicom("numpy", "PIL"):  # an object is stored as it came: its pixels are looked at by `infer`
        from edge.dicom.arrival import Admission
        from edge.dicom.commitment import Judge, Requests
        from edge.dicom.listener import Listener, be_silent, limits_of
        from edge.dicom.peers import own_peer, parse_peers
        from edge.dicom.reports import Reporter, connector
    from edge.intake.spool import Spool
    from edge.unattended.lifecycle import Stop, only_one
    from edge.unattended.notify import Notifier

    # A report to a machine that is slow to answer is one turn of its thread.
    notifier = Notifier.of_environment(2 * device.dicom.silent_s + LONGEST_S)
    stop = Stop(notifier.stopping)
    be_silent()
    state = Path(device.state)
    peers = parse_peers(device.dicom.allow)
    limits = limits_of(device.dicom, peers)
    with only_one(state, "dicom"):
        spool = Spool(state)
        spool.remove_parts()
        max_bytes = device.decode.max_bytes
        capacity = Capacity(state, device.storage.results_bytes)
        admission = Admission(spool, max_bytes, capacity.has_room)
        judge = Judge(spool, state / "outbox.db", device.device)
        reporter = Reporter(Requests(state / "commitments"), judge, connector(device.dicom, peers, limits))
        known = (*peers, own_peer(device.dicom))
        listener = Listener(device.dicom, known, limits, admission, reporter, notifier.progress)
        notifier.ready("listens for X-ray machines")
        listener.run(stop)


def pacs(arguments: Arguments) -> None:
    device = begin("pacs", arguments)
    if device.pacs is None:
        raise CxrError(f"{arguments.config} has no [pacs] table, so there is nobody to send answers to.")
    from importlib.util import find_spec

    if find_spec("highdicom") is None:
        raise CxrError("highdicom, which makes structured reports, is not installed; 32-bit ARM has none. Remove [pacs] there.")
    from edge.infer.local import LocalStore
    from edge.outbox.reading import Reading
    from edge.pacs.courier import Courier, longest_s
    from edge.pacs.messenger import Messenger
    from edge.pacs.waiting import Waiting
    from edge.unattended.lifecycle import Stop, only_one
    from edge.unattended.notify import Notifier

    notifier = Notifier.of_environment(longest_s(device.decode, device.pacs.silent_s) + LONGEST_S)
    stop, state = Stop(notifier.stopping), Path(device.state)
    with only_one(state, "pacs"):
        courier = Courier(device.decode)
        waiting = Waiting(state, device.pacs, device.decode, LocalStore(state))
        try:
            notifier.ready("tells the PACS of answers")
            Messenger(state, Reading(state / "outbox.db", device.device), waiting, courier).run(stop, notifier.progress)
        finally:
            courier.rest()


def page(arguments: Arguments) -> None:
    device = begin("page", arguments)
    if device.page is None:
        raise CxrError('There is no [page] in the configuration. Add it, with pin = "page.pin".')
    from functools import partial

    from edge.capacity import Capacity
    from edge.infer.local import LocalStore
    from edge.intake.spool import Spool
    from edge.network.manifest import bundle_folder, read_manifest
    from edge.outbox.reading import Reading
    from edge.page.app import Parts, create_app
    from edge.page.checking import Checking
    from edge.page.film import Films
    from edge.page.health import Health
    from edge.page.hosts import own_names
    from edge.page.server import serve
    from edge.page.session import Sessions, load_pin
    from edge.page.studies import Studies
    from edge.page.upload import Uploads
    from edge.pixels.turn import turn_of
    from edge.requests import Requests
    from edge.unattended.lifecycle import only_one
    from edge.unattended.notify import Notifier

    notifier = Notifier.of_environment(LONGEST_S)
    state = Path(device.state)
    sessions = Sessions(partial(load_pin, Path(device.page.pin)))
    with only_one(state, "page"):
        reading, requests = Reading(state / "outbox.db", device.device), Requests(state)
        capacity = Capacity(state, device.storage.results_bytes)
        try:
            manifest = read_manifest(bundle_folder(device.model.bundle))
        except CxrError:
            manifest = None  # `infer` says so; what was answered can still be read
        certificate = Path(device.relay.certificate) if device.relay.certificate else None
        parts = Parts(
            facility=device.facility,
            studies=Studies(state, reading, LocalStore(state), requests),
            uploads=Uploads(state, Spool(state), device.decode.max_bytes),
            films=Films(device.decode, turn_of(state)),
            health=Health(state, names(device), reading, capacity, manifest, device.hot_c, certificate),
            checking=Checking(state, device.commissioning, manifest, device.model.threshold),
            sessions=sessions,
            requests=requests,
            has_room=capacity.has_room,
            names=own_names(device.page.address),
            secure=bool(device.page.certificate),
        )
        serve(create_app(parts), device.page, notifier, capacity.has_room)
