"""A device's own side of renewal: what it takes, what it leaves, and what it costs a process that does not renew."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from cryptography import x509

from broker.fleet.certificates import Maker, certificate_pem, key_pem, new_key, new_root
from edge.config import Device, Relay, Watch
from edge.contract.messages import Command, Reply
from edge.delivery.commands import Commands
from edge.sealed.keys import load_identity

NOW = datetime.now(timezone.utc)
ID = "ab" * 16


@pytest.fixture(scope="module")
def root() -> Maker:
    return new_root("root", NOW)


@pytest.fixture
def device(tmp_path: Path, root: Maker) -> Device:
    (tmp_path / "ca.pem").write_bytes(certificate_pem(root.certificate))
    key = new_key()
    (tmp_path / "device.pem").write_bytes(key_pem(key) + signed(root, key.public_key()).encode())
    own = str(tmp_path / "device.pem")
    relay = Relay(url="mqtts://h:1", ca=str(tmp_path / "ca.pem"), certificate=own, private_key=own)
    return Device(device="clinic-1", facility="C", state=str(tmp_path), site_key="k", watch=Watch(folder="f"), relay=relay)


def signed(root: Maker, key: object, name: str = "clinic-1") -> str:
    return certificate_pem(root.client(name, key, NOW, timedelta(days=425))).decode()  # type: ignore[arg-type]


def ask(commands: Commands, verb: str, certificate: str | None = None, device: str = "clinic-1") -> Reply:
    return commands.answer(Command(device=device, id=ID, verb=verb, certificate=certificate))


def requested(reply: Reply) -> object:
    assert reply.ok
    assert reply.request is not None
    return x509.load_pem_x509_csr(reply.request.encode()).public_key()


def test_a_new_key_and_its_certificate_take_the_place_of_the_old(device: Device, root: Maker) -> None:
    path = Path(device.relay.certificate)
    before = path.read_bytes()
    commands = Commands(device)
    request = ask(commands, "renew")
    assert path.read_bytes() == before
    assert ask(commands, "certificate", signed(root, requested(request))).ok
    identity = load_identity(path, path)
    assert identity.key.public_key() == requested(request)
    assert path.stat().st_mode & 0o777 == 0o600
    assert (commands.take_renewed(), commands.take_renewed()) == (True, False)
    # The same once more was not asked for.
    assert not ask(commands, "certificate", signed(root, requested(request))).ok


def test_what_does_not_fit_leaves_all_as_it_is(device: Device, root: Maker, caplog: pytest.LogCaptureFixture) -> None:
    path = Path(device.relay.certificate)
    before = path.read_bytes()
    commands = Commands(device)
    assert "not asked for" in ask(commands, "certificate", signed(root, new_key().public_key())).detail
    key = requested(ask(commands, "renew"))
    for certificate, why in (
        (signed(root, new_key().public_key()), "for another key"),
        (signed(root, key, "clinic-2"), "for clinic-2"),
        (signed(new_root("other", NOW), key), "another authority"),
        (None, "cannot be read"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "cannot be read"),
    ):
        reply = ask(commands, "certificate", certificate)
        assert (reply.ok, why in reply.detail) == (False, True), reply
    assert path.read_bytes() == before
    assert not commands.take_renewed()
    assert ask(commands, "certificate", signed(root, key)).ok, "a wrong one does not end the wait for the right one"


def test_a_full_disk_leaves_the_present_certificate(device: Device, root: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path(device.relay.certificate)
    before = path.read_bytes()
    commands = Commands(device)
    key = requested(ask(commands, "renew"))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert "No space left" in ask(commands, "certificate", signed(root, key)).detail
    assert path.read_bytes() == before
    assert ask(commands, "certificate", signed(root, key)).ok


def test_key_and_certificate_in_two_files_cannot_be_changed_at_once(device: Device, tmp_path: Path) -> None:
    from msgspec.structs import replace

    apart = replace(device, relay=replace(device.relay, private_key=str(tmp_path / "device.key")))
    assert "should name one file" in ask(Commands(apart), "renew").detail


def test_other_questions(device: Device) -> None:
    commands = Commands(device)
    assert ask(commands, "ping").detail == "here"
    assert not ask(commands, "format_disk").ok
    assert not ask(commands, "renew", device="clinic-2").ok


def test_a_process_that_does_not_renew_does_not_load_the_library_for_it() -> None:
    code = """
import sys
import edge.cli, edge.commands.relay, edge.commands.processes
import edge.delivery.relay, edge.delivery.mqtt, edge.delivery.https, edge.delivery.sync, edge.delivery.status
import edge.delivery.commands, edge.enrolment.renewal, edge.enrolment.validity
import edge.infer.loop, edge.infer.inference, edge.intake.watch, edge.page.app, edge.page.health
from edge.config import Device, Watch
edge.delivery.commands.Commands(Device(device="a", facility="b", state="s", site_key="k", watch=Watch(folder="f")))
sys.exit("cryptography" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
