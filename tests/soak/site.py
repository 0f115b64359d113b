"""Clinic and centre as they stand before anything happens: files, configuration, commands."""

from __future__ import annotations

import json
import sys
from contextlib import closing
from pathlib import Path

from edge.config import load_config
from edge.contract import codec
from edge.intake.spool import Spool
from edge.outbox.writer import Entry, Outbox
from edge.privacy.pseudonym import load_site_key
from tests.soak.clocks import Clocks
from tests.soak.disk import Disk
from tests.soak.ledger import Ledger
from tests.soak.link import Link
from tests.soak.plan import Plan
from tests.soak.processes import DEVICE, Processes, edge_command
from tests.soak.senders import Browser, Folder, Machine, Sender
from tests.soak.studies import Way
from tests.soak.verdict import Evidence
from tests.support import messages
from tests.support.authority import Authority, Identity
from tests.support.clinic import Device, make_device
from tests.support.mosquitto import write_fleet
from tests.support.processes import find_program, free_port

_MACHINES = ("XRAY1", "XRAY2", "XRAY3")
_RESULTS_MIB = 32
"""The least that may be configured."""
_FULL = 0.997
"""Share of the outbox that past outcomes fill: some thirty more, and it is full."""

_RELAY = """
ca = "{ca}"
certificate = "{certificate}"
private_key = "{private_key}"
https = "https://127.0.0.1:{sync}"
https_after_s = 1.0
receipt_timeout_s = 1.0
status_every_s = 2.0

[dicom]
port = {dicom}
allow = {allow}

[storage]
results_mb = {results}
keep_images_mb = 16
keep_local = 100
"""
"""Times are shorter than usual, as the hours are."""


class Site:
    """Everything that the simulation acts on. Nothing runs yet but the link, which is down."""

    def __init__(self, plan: Plan, home: Path) -> None:
        """Args: home: an empty folder."""
        authority = Authority(home / "ca", hours=3)
        broker, sync, dicom = free_port(), free_port(), free_port()
        database, self.broker_folder = home / "centre.db", home / "mosquitto"
        self.disk = Disk(home / "disk", plan.disk_mib * 2**20)
        self.link = Link([broker, sync])
        self.device = self._make_device(home / "clinic", authority.client("clinic-1"), authority.ca, dicom)
        self.spool = Spool(self.device.state)
        past = self._past()
        commands = {name: edge_command(name, self.device.config) for name in DEVICE}
        commands |= _centre(self.broker_folder, authority, broker, sync, database)
        (home / "logs").mkdir()
        self.processes = Processes(commands, home / "logs", Clocks(home))
        self.ledger = Ledger()
        settings = load_config(self.device.config)
        assert settings.page is not None
        self.senders: dict[Way, list[Sender]] = {
            "machine": [Machine(self.ledger, title, dicom, home / title) for title in _MACHINES],
            "folder": [Folder(self.ledger, self.device.inbox)],
            "page": [Browser(self.ledger, settings.page.port, Path(settings.page.pin))],
        }
        self.evidence = Evidence(self.ledger, self.device, load_site_key(Path(settings.site_key)), past, database)

    def all_senders(self) -> list[Sender]:
        """Return all of them."""
        return [sender for senders in self.senders.values() for sender in senders]

    def refused(self) -> int:
        """Return how often an X-ray machine was told that there is no room (0xA700)."""
        return self.ledger.met("refused by C-STORE: Refused: OutOfResources")

    def _make_device(self, home: Path, identity: Identity, ca: Path, dicom: int) -> Device:
        """Its state stands on the small disk. The watched folder is on another, as a network share is: files are copied."""
        lines = _RELAY.format(
            ca=ca,
            certificate=identity.cert,
            private_key=identity.key,
            sync=self.link.ports[1],
            dicom=dicom,
            allow=json.dumps([f"{title}@127.0.0.1" for title in _MACHINES]),
            results=_RESULTS_MIB,
        )
        device = make_device(home, f"mqtts://127.0.0.1:{self.link.ports[0]}", extra=[lines])
        state = self.disk.path / "state"
        text = device.config.read_text("utf-8").replace('state = "state"', f'state = "{state}"')
        device.config.write_text(text.replace("[watch]", "[watch]\nrescan_s = 0.5\nsettle_s = 0.2"), "utf-8")
        device.state.rmdir()
        state.mkdir(mode=0o700)
        device.state.symlink_to(state)
        return device

    def _past(self) -> frozenset[str]:
        """Let the device be one that has had no link for months: its outbox is nearly as full as it may become."""
        path, name = self.device.state / "outbox.db", self.device.name
        timings = {f"step_{number}": 1.0 for number in range(400)}
        keys = set()
        with closing(Outbox(path, name, results_bytes=_RESULTS_MIB * 2**20)) as outbox:
            while outbox._file.used() < _FULL:
                seq = outbox.last_seq() + 1
                payload = codec.encode(messages.result(name, seq, outbox.epoch, timings_ms=timings))
                key = f"{seq:064x}"
                outbox.record(Entry(key, "result", lambda _, payload=payload: payload))
                keys.add(key)
        return frozenset(keys)


def _centre(folder: Path, authority: Authority, broker: int, sync: int, database: Path) -> dict[str, list[str]]:
    """Return the commands of the centre's processes; `folder` is for Mosquitto's files."""
    server, own = authority.server("centre"), authority.client("aggregator")
    configuration = write_fleet(folder, broker, authority)
    return {
        "mosquitto": [find_program("mosquitto", "mosquitto"), "-c", str(configuration)],
        "aggregator": [
            *(sys.executable, "-m", "broker.cli", "aggregate", "--db", f"sqlite:///{database}"),
            *("--mqtt", f"mqtts://127.0.0.1:{broker}"),
            *("--ca", str(authority.ca), "--cert", str(own.cert), "--key", str(own.key)),
            *("--sync", f"https://127.0.0.1:{sync}"),
            *("--sync-ca", str(authority.ca), "--sync-cert", str(server.cert), "--sync-key", str(server.key)),
        ],
    }
