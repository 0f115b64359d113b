"""Wrong use ends in one clear sentence and exit status 2, never in a traceback."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography.x509 import load_pem_x509_certificate, load_pem_x509_crl

from broker.aggregate import Aggregator
from broker.cli import main
from broker.database import parse_url
from broker.mosquitto import render as rendering
from broker.sql_store import SqlStore
from tests.support import messages
from tests.support.links import FakeLink
from tests.support.messages import EPOCH, on_wire
from tests.support.processes import free_port


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def fails(sentence: str, *arguments: object) -> None:
    result = call(*arguments)
    assert result.exit_code == 2, result.output
    assert sentence in result.output
    assert "Traceback" not in result.output
    assert result.output.count("\n") == 1


def test_databases_that_cannot_be_used(tmp_path: Path) -> None:
    fails("no database that can be used", "results", "--db", "mysql://h/n")
    fails("There is no database at", "results", "--db", tmp_path / "none.db")
    fails("There is no database at", "quarantine", "--db", tmp_path / "none.db")
    fails("folder", "aggregate", "--db", tmp_path / "no" / "centre.db")


def test_a_second_aggregator(tmp_path: Path) -> None:
    path = tmp_path / "centre.db"
    with closing(SqlStore(parse_url(str(path)))):
        fails("Another aggregator writes to", "aggregate", "--db", path)


def test_a_broker_address_that_is_none(tmp_path: Path) -> None:
    fails("no broker address", "aggregate", "--mqtt", "localhost", "--db", tmp_path / "centre.db")
    fails("no broker address", "ping", "dev-a", "--mqtt", "localhost")
    assert not (tmp_path / "centre.db").exists()


def test_ping_without_a_broker_or_a_name() -> None:
    fails("No broker answers", "ping", "dev-a", "--mqtt", f"mqtt://127.0.0.1:{free_port()}")
    fails("is no device name", "ping", "dev/a")


def test_ports_that_are_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        fails(f"Port {port} on 127.0.0.1 cannot be used", "serve", "--db", tmp_path / "centre.db", "--port", port)
        fails(f"Port {port} on 127.0.0.1 cannot be used", "mosquitto", "--dir", tmp_path, "--port", port)


def test_the_broker_starts_with_a_list_made_of_the_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, became = tmp_path / "authority", []
    assert CliRunner().invoke(main, ["init", str(folder), "--host", "127.0.0.1", "--mqtt-port", str(free_port())]).exit_code == 0
    whole = (folder / "crl.pem").read_bytes()
    monkeypatch.setattr("broker.cli.find_mosquitto", lambda: "mosquitto")
    monkeypatch.setattr("os.execv", lambda *arguments: became.append(arguments))
    for damaged in (b"", whole[:100], None):
        (folder / "crl.pem").unlink() if damaged is None else (folder / "crl.pem").write_bytes(damaged)
        assert CliRunner().invoke(main, ["mosquitto", "--dir", str(folder)]).exit_code == 0
        assert load_pem_x509_crl((folder / "crl.pem").read_bytes()).is_signature_valid(
            load_pem_x509_certificate((folder / "ca.pem").read_bytes()).public_key()  # type: ignore[arg-type]
        )
    (folder / "journal.jsonl").write_bytes(b"?\n{}\n")  # then with the list that is there
    assert CliRunner().invoke(main, ["mosquitto", "--dir", str(folder)]).exit_code == 0
    assert became == [("mosquitto", ["mosquitto", "-c", str(folder / "mosquitto.conf")])] * 4


def test_mosquitto_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(rendering, "_ALSO_HERE", str(tmp_path))
    fails("apt install mosquitto", "mosquitto", "--dir", tmp_path)


def test_listings(tmp_path: Path) -> None:
    path = tmp_path / "centre.db"
    link = FakeLink()
    for seq in range(1, 701):
        link.put(*on_wire(messages.result(seq=seq)))
    link.put(*on_wire(messages.refusal(seq=701)))
    link.put("cxr/v1/dev-a/result", b"\x1b[31m\n")
    with closing(SqlStore(parse_url(str(path)))) as store:
        Aggregator(store, link).handle(link.receive(1000, 0, 0), threading.Event())
    lines = [json.loads(line) for line in call("results", "--db", path, "--json", "--limit", 0).output.splitlines()]
    assert [line["seq"] for line in lines] == list(range(701, 0, -1))
    assert lines[0] == {
        "device": "dev-a", "epoch": EPOCH, "seq": 701, "kind": "refusal", "label": None, "abstained": None, "probabilities": None,
        "reasons": ["not_a_radiograph"], "voids": None, "voided_by": None, "received_at": lines[0]["received_at"],
    }  # fmt: skip
    assert lines[1]["probabilities"] == messages.result().probabilities
    assert len(call("results", "--db", path, "--limit", 501).output.splitlines()) == 501
    assert "label=covid" in call("results", "--db", path, "--limit", 2).output
    [odd] = [json.loads(line) for line in call("quarantine", "--db", path, "--json").output.splitlines()]
    assert (odd["reason"], odd["payload"]) == ("not_json", "\x1b[31m\n")
    assert "\x1b" not in call("quarantine", "--db", path).output


def test_templates_are_filled_in_completely(tmp_path: Path) -> None:
    loopback = rendering.write_loopback(tmp_path / "a", 1234).read_text()
    assert "listener 1234 127.0.0.1" in loopback
    fleet = rendering.fleet_files(tmp_path / "b", 8883, aggregator="aggregator", operator="operator", dashboard="dashboard")
    assert set(fleet) == {"mosquitto.conf", "mosquitto.acl"}
    for text in (loopback, *fleet.values()):
        assert "$" not in text
    with pytest.raises(KeyError):
        rendering.render("fleet.conf", port=1)
