"""A revoked device is cut off within 10 s, and refused from then on, whichever way it comes."""

from __future__ import annotations

import os
import signal
import ssl
import time
from pathlib import Path

import pytest

from broker.fleet.authority import Authority
from broker.fleet.broker_process import _listens_for_sighup, reload
from broker.fleet.standing import Revocation
from tests.support.fleet import Fleet, lets_in, make_fleet, mqtt_socket, run
from tests.support.processes import find_program, listens, running, wait_for
from tests.support.remote import Remote


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    made = make_fleet(tmp_path / "fleet")
    table = tmp_path / "devices.csv"
    table.write_text("device,facility\nclinic-1,Clinic\nclinic-2,Clinic\n")
    made.enroll("--table", table)
    return made


def test_a_live_connection_is_cut_and_the_next_refused(fleet: Fleet) -> None:
    card, other = fleet.remote("clinic-1"), fleet.remote("clinic-2")
    with fleet.mosquitto() as broker, fleet.aggregator() as centre, card.relay(), other.relay():
        for one in (card, other):
            one.record(1)
            wait_for(lambda one=one: one.waiting() == 0, "it delivers")  # type: ignore[misc]
        wait_for(lambda: fleet.standing("clinic-1")["standing"] == "ok", "it has a certificate of its own")
        began = time.monotonic()
        assert "clinic-1 is revoked: its connection is cut" in run("revoke", "clinic-1", "--dir", fleet.dir)
        wait_for(lambda: card.said("the connection was lost"), "the device notices", 5)
        assert time.monotonic() - began < 10
        card.record(1)
        wait_for(lambda: card.said("may not take this device's certificate (revoked"), "it says why", 20)
        assert card.said("connected to") == 2  # with the key of the file, and with its own; never after
        assert card.waiting() == 1
        assert fleet.standing("clinic-1")["standing"] == "revoked"
        # Nobody else is disturbed.
        other.record(1)
        wait_for(lambda: other.waiting() == 0, "the other device delivers")
        assert not other.said("the connection was lost")
        assert not centre.said("is lost")
        # Again does no harm, also to a broker that was started anew.
        broker.stop()
        broker.start()
        assert not lets_in(fleet, fleet.identity(card.home))
        assert lets_in(fleet, fleet.identity(other.home))
        run("revoke", "clinic-1", "--dir", fleet.dir)
        assert not lets_in(fleet, fleet.identity(card.home))


def test_a_resumed_tls_session_does_not_get_past_the_list(fleet: Fleet) -> None:
    card = fleet.device("clinic-1")
    ca, cert, key = fleet.tls(card.home)
    with fleet.mosquitto():
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = ssl.create_default_context(cafile=str(ca))
            context.maximum_version = version
            context.load_cert_chain(cert, key)
            with mqtt_socket(fleet, context) as tls:
                assert tls.recv(4)
                session = tls.session
            assert session is not None
            assert lets_in(fleet, fleet.identity(card.home), session, context)
            run("revoke", "clinic-1", "--dir", fleet.dir)
            assert not lets_in(fleet, fleet.identity(card.home), session, context)
            fleet.enroll("clinic-1", "--facility", "Clinic", "--again")
            fleet.enrol(card)


def test_by_https_a_revoked_device_is_told_so(fleet: Fleet) -> None:
    card = fleet.remote("clinic-1", more=["https_after_s = 0.2"])
    with fleet.aggregator(connected=False) as centre, card.relay():
        card.record(1)
        wait_for(lambda: card.waiting() == 0, "it delivers by HTTPS", 30)
        assert "No broker runs" in run("revoke", "clinic-1", "--dir", fleet.dir)
        card.record(1)
        wait_for(lambda: card.said("The certificate of this device was revoked"), "it is told", 20)
        assert card.waiting() == 1
        assert centre.said("the certificate of 'clinic-1' was revoked")


def sealed_by(card: Remote, folder: Path) -> tuple[Path, Path]:
    """Return a stick to which a device has exported two outcomes, and the file on it."""
    card.record(2)
    (stick := folder / "stick").mkdir()
    run("export", stick, "--config", card.config, program="edge.cli")
    [file] = stick.iterdir()
    return stick, file


def test_what_a_revoked_device_has_sealed_is_refused(fleet: Fleet, tmp_path: Path) -> None:
    card = fleet.remote("clinic-1")
    stick, file = sealed_by(card, tmp_path)
    arguments = ("import", file, "--db", fleet.database, "--authority", fleet.dir, "--receipts", stick)
    assert "2 outcomes of clinic-1" in run(*arguments)
    [receipts] = stick.glob("*receipts*")
    assert "2 outcomes have their receipt" in run("import-receipts", receipts, "--config", card.config, program="edge.cli")
    run("revoke", "clinic-1", "--dir", fleet.dir)
    assert "the certificate of clinic-1 was revoked" in run(*arguments)


def test_what_a_replaced_card_left_on_a_stick_is_not_lost(fleet: Fleet, tmp_path: Path) -> None:
    stick, file = sealed_by(fleet.remote("clinic-1"), tmp_path)
    fleet.enroll("clinic-1", "--facility", "Clinic", "--again")
    arguments = ("import", file, "--db", fleet.database, "--authority", fleet.dir, "--receipts", stick)
    assert "--revoked-too takes it" in run(*arguments)
    assert not run("results", "--db", fleet.database, "--json")
    assert "2 outcomes of clinic-1" in run(*arguments, "--revoked-too")
    assert len(run("results", "--db", fleet.database, "--json").splitlines()) == 2


def test_a_broker_that_was_off_refuses_when_it_starts(fleet: Fleet) -> None:
    card = fleet.device("clinic-1")
    with fleet.mosquitto():
        assert lets_in(fleet, fleet.identity(card.home))
    assert "refuses those certificates from its next start on" in run("revoke", "clinic-1", "--dir", fleet.dir)
    with fleet.mosquitto():
        assert not lets_in(fleet, fleet.identity(card.home))


@pytest.mark.parametrize("command", ["revoke", "enroll --again"])
def test_where_no_broker_runs_it_is_said_what_is_to_be_copied(fleet: Fleet, command: str) -> None:
    """What a new card replaces is shut out as what is revoked, and the words are the same."""

    def said() -> str:
        if command == "revoke":
            return run("revoke", "clinic-1", "--dir", fleet.dir)
        return fleet.enroll("clinic-1", "--facility", "Clinic", "--again")

    first = fleet.identity(fleet.device("clinic-1").home)
    what = "clinic-1" if command == "revoke" else "What clinic-1 had before"
    told = said()
    assert f"{what} is revoked. No broker runs on this machine" in told
    assert f"copy {fleet.dir / 'crl.pem'} there, and send it SIGHUP" in told
    with fleet.mosquitto():
        assert not lets_in(fleet, first)
        told = said()
    assert f"{what} is revoked: its connection is cut, and the broker refuses its certificates." in told
    assert "crl.pem" not in told


def test_cut_off_between_journal_and_list_it_is_made_good_by_the_next_command(fleet: Fleet) -> None:
    card = fleet.device("clinic-1")
    authority = Authority(fleet.dir)
    with authority._journal.turn():  # as if killed before the list was written
        authority.fleet()
        authority.record(Revocation(authority.now(), "clinic-1"))
    with fleet.mosquitto():
        assert lets_in(fleet, fleet.identity(card.home))
        run("revoke", "clinic-1", "--dir", fleet.dir)
        assert not lets_in(fleet, fleet.identity(card.home))


def test_a_broker_that_is_only_just_starting_is_not_ended_by_the_news(fleet: Fleet) -> None:
    """Its process id is there before it has said what it does at SIGHUP."""
    authority = Authority(fleet.dir)
    program = [find_program("mosquitto", "mosquitto"), "-c", str(authority.configuration)]
    with running(program, fleet.folder / "mosquitto.log") as process:
        while not reload(authority):
            assert process.poll() is None
        wait_for(lambda: process.poll() is not None or listens(fleet.mqtt), "it listens, or was ended")
        time.sleep(0.5)
        assert process.poll() is None


def test_a_stranger_process_with_the_number_of_the_broker_is_left_alone(fleet: Fleet, tmp_path: Path) -> None:
    with running(["sleep", "60"], tmp_path / "log") as process:
        (fleet.dir / "broker" / "mosquitto.pid").write_text(f"{process.pid}\n")
        assert "No broker runs" in run("revoke", "clinic-1", "--dir", fleet.dir)
        assert process.poll() is None


def test_a_broker_that_does_not_follow_is_told_of(fleet: Fleet) -> None:
    with fleet.mosquitto() as broker:
        process = broker.process
        assert process is not None
        wait_for(lambda: _listens_for_sighup(process.pid), "its start is done")
        os.kill(process.pid, signal.SIGSTOP)
        try:
            began = time.monotonic()
            said = run("revoke", "clinic-1", "--dir", fleet.dir, fails=True)
        finally:
            os.kill(process.pid, signal.SIGCONT)
        assert "start the broker again now" in said
        assert time.monotonic() - began < 40
        assert fleet.standing("clinic-1")["standing"] == "revoked"


def test_who_was_never_enrolled(fleet: Fleet) -> None:
    assert "was never enrolled" in run("revoke", "clinic-9", "--dir", fleet.dir, fails=True)
