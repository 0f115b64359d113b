"""The process that delivers, as `edge/cli.py` starts it. Imports stand inside on purpose."""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.commands.processes import LONGEST_S, begin
from edge.errors import CxrError

if TYPE_CHECKING:
    from edge.config import Device
    from edge.contract.bundle import Manifest
    from edge.delivery.commands import Commands
    from edge.delivery.receipts import Receipts
    from edge.delivery.relay import Relay, Route
    from edge.delivery.status import StatusWriter
    from edge.outbox.writer import Outbox
    from edge.unattended.notify import Notifier

Arguments = argparse.Namespace


def relay(arguments: Arguments) -> None:
    device = begin("relay", arguments)
    import logging

    import apsw

    from edge.delivery.status import StatusWriter
    from edge.network.manifest import bundle_folder, read_manifest
    from edge.outbox.rebuild import outbox_of_relay
    from edge.unattended.lifecycle import Stop, only_one
    from edge.unattended.notify import Notifier

    # A name server and a broker that do not answer hold up one turn: half a minute, then ten seconds for each address.
    notifier = Notifier.of_environment(2 * LONGEST_S)
    stop = Stop(notifier.stopping)
    with only_one(Path(device.state), "relay"):
        try:
            manifest = read_manifest(bundle_folder(device.model.bundle))
        except CxrError as error:
            logging.error("%s", error)  # what waits is delivered all the same
            manifest = None
        path, most = Path(device.state) / "outbox.db", device.storage.results_bytes
        try:
            with outbox_of_relay(path, device.device, most, stop, notifier.progress) as outbox:
                _relay_with(device, outbox, StatusWriter(device, manifest, outbox), stop, notifier)
        except apsw.Error as error:
            raise CxrError(f"The outbox cannot be used ({error}). Nothing is lost; delivery goes on when it can be.") from None


def _relay_with(device: Device, outbox: Outbox, status: StatusWriter, stop: Any, notifier: Notifier) -> None:
    from edge.delivery.mqtt import PahoLink
    from edge.delivery.relay import Relay

    def second(receipts: Receipts, commands: Commands) -> Route:
        from edge.delivery.https import HttpsExchange
        from edge.delivery.sync import SyncRoute

        exchange = HttpsExchange(device.relay)
        return SyncRoute(outbox, receipts, lambda: status("online"), exchange, device.relay.https_after_s, commands.answer)

    relay = Relay(
        device,
        outbox,
        status,
        lambda will_topic, will: PahoLink(device.relay, device.device, will_topic, will),
        second if device.relay.https else None,
        notifier.progress,
    )
    if device.metrics is not None:
        _serve_metrics(device, relay, status.manifest)
    notifier.ready("delivers what is in the outbox")
    relay.run(stop)


def _serve_metrics(device: Device, relay: Relay, manifest: Manifest | None) -> None:
    import logging

    from edge.delivery.status import StatusWriter
    from edge.outbox.reader import OutboxReader
    from edge.unattended.metrics import exposition
    from edge.unattended.metrics_server import serve_in_thread
    from edge.unattended.tally import read_restarts, read_tally

    state = Path(device.state)

    def text() -> str:
        # In a thread of its own, and the relay's outbox is for one.
        with contextlib.closing(OutboxReader(state / "outbox.db", device.device)) as outbox:
            status = StatusWriter(device, manifest, outbox)("online")
        return exposition(status, read_tally(state), read_restarts(state), relay.receipts.taken, connected=relay.connected)

    assert device.metrics is not None
    try:
        serve_in_thread(device.metrics.port, text)
    except CxrError as error:
        logging.error("%s", error)  # what waits is delivered all the same
