"""From nothing to a result at the centre, with the commands that people use and the real Mosquitto."""

from __future__ import annotations

import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.soak.clocks import Clocks
from tests.support import messages
from tests.support.clinic import Device, small_picture
from tests.support.fleet import Fleet, make_fleet, run
from tests.support.processes import end, running, wait_for, wait_for_port
from tests.support.wire_device import wire_device


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    """A fleet whose devices the tests name differently."""
    return make_fleet(tmp_path_factory.mktemp("fleet"))


def tree(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder and what it holds."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_from_nothing_to_a_result(tmp_path: Path) -> None:
    fleet = make_fleet(tmp_path / "fleet")
    said = fleet.enroll("clinic-1", "--facility", "Clinic 1")
    assert fleet.code("clinic-1") not in said
    device = fleet.board("clinic-1")
    said = fleet.enrol(device)
    assert "This board is clinic-1 of Clinic 1" in said
    assert 'device = "clinic-1"        # is filled in' in device.config.read_text()
    broker = [sys.executable, "-m", "broker.cli", "mosquitto", "--dir", str(fleet.dir)]
    with running(broker, tmp_path / "broker.log") as process:
        wait_for_port(fleet.mqtt, process, tmp_path / "broker.log")
        first_result(fleet, device)
    for path in (fleet.dir, fleet.out, device.state / "identity"):
        for file in (path, *path.rglob("*")):
            assert not stat.S_IMODE(file.stat().st_mode) & 0o077, file
    secrets = [(device.state / "identity" / "site.key").read_text().split()[0], fleet.code("clinic-1")]
    for log in (device.log, *fleet.folder.glob("aggregator*.log")):
        assert not any(secret in log.read_text() for secret in (*secrets, "PRIVATE KEY"))
    assert not any(secrets[0].encode() in content for content in tree(fleet.dir).values())


def first_result(fleet: Fleet, device: Device) -> None:
    with fleet.aggregator() as centre:
        device.start()
        try:
            small_picture(device.inbox / "a.png", 1)
            wait_for(lambda: device.waiting() == 0, "the receipt has come", 60)
            assert "clinic-1 answered ok" in run("ping", "clinic-1", "--authority", fleet.dir)
            # The operator's name is another than the aggregator's, whose connection it would take over.
            assert not centre.said("is lost")
            wait_for(lambda: fleet.standing("clinic-1")["standing"] == "ok", "the centre knows that it is in service", 20)
            assert "readable, good until" in run_check(device.config)
        finally:
            device.stop()


def run_check(config: Path) -> str:
    """`cxr-edge check`: exit status 1 for reasons of the test machine."""
    done = subprocess.run(
        [sys.executable, "-m", "edge.cli", "check", "--config", str(config)], capture_output=True, text=True, check=False
    )
    return done.stdout


def test_init_again_changes_nothing(tmp_path: Path) -> None:
    fleet = make_fleet(tmp_path / "fleet")
    before = tree(fleet.dir)
    ports = ("--mqtt-port", fleet.mqtt, "--https-port", fleet.https)
    assert "nothing was changed" in run("init", fleet.dir, "--host", "127.0.0.1", *ports)
    assert "`--renew` changes them" in run("init", fleet.dir, "--host", "centre.example", *ports, fails=True)
    assert tree(fleet.dir) == before
    with fleet.mosquitto() as broker:
        run("init", fleet.dir, "--host", "centre.example", "--host", "127.0.0.1", *ports, "--renew")
        after = tree(fleet.dir)
        assert {name for name in before if before[name] != after[name]} == {"authority.json", "broker.pem"}
        fleet.enroll("clinic-1", "--facility", "Clinic 1")
        device = fleet.remote("clinic-1")
        assert "mqtts://centre.example:" in device.config.read_text()
        with wire_device("clinic-1", broker.port, fleet.tls(device.home)):
            pass  # the renewed certificate is the same authority's


def test_what_cannot_be_opened_is_told_in_a_sentence_and_changes_nothing(fleet: Fleet, tmp_path: Path) -> None:
    fleet.enroll("wrong-1", "--facility", "Wrong")
    fleet.enroll("wrong-2", "--facility", "Wrong")
    board = fleet.board("wrong-1", tmp_path / "board")
    before = tree(board.home)
    whole = (fleet.out / "wrong-1.enrol").read_bytes()
    cut, text = tmp_path / "cut.enrol", tmp_path / "text.enrol"
    cut.write_bytes(whole[:-1])
    text.write_text("hello\n" * 100)
    other = fleet.code("wrong-2") + "\n"
    code = fleet.code("wrong-1")
    mistyped = f"{'0' if code[0] != '0' else '2'}{code[1:]}"
    for sentence, file, typed in (
        ("cannot be read (No such file", tmp_path / "none.enrol", None),
        ("cannot be read (Is a directory", tmp_path, None),
        ("the code does not open it", None, other),
        ("the code does not open it", cut, None),
        ("it is no enrolment file", text, None),
        ("The code has 4 groups", None, "\n"),
        ("The code has 4 groups", None, ""),
        ("The code has 4 groups", None, "x" * 2000),
        ("of the code was mistyped", None, mistyped + "\n"),
    ):
        said = fleet.enrol(board, typed, file=file, fails=True)
        assert sentence in said, said
        assert "Nothing was changed" in said
        assert tree(board.home) == before


def test_a_file_whose_time_is_over_says_how_to_set_a_wrong_clock(fleet: Fleet, tmp_path: Path) -> None:
    fleet.enroll("late-1", "--facility", "Late", "--use-within", 90)
    board = fleet.board("late-1", tmp_path / "board")
    before = tree(board.home)
    clocks = Clocks(tmp_path)
    said = fleet.enrol(board, fails=True, clock=clocks.beside(92))
    assert "could be used until" in said
    assert "timedatectl set-time" in said
    assert tree(board.home) == before
    # A board without a clock is in 1970: that is no reason.
    fleet.enrol(board, clock=clocks.environment("1970"))


def test_a_board_of_another_device_keeps_what_waits_in_it(fleet: Fleet, tmp_path: Path) -> None:
    fleet.enroll("mine-1", "--facility", "Mine")
    fleet.enroll("other-1", "--facility", "Other")
    board = fleet.board("mine-1", tmp_path / "board")
    fleet.enrol(board)
    before = tree(board.home)
    said = fleet.enrol(board, fleet.code("other-1") + "\n", file=fleet.out / "other-1.enrol", fails=True)
    assert "This board is mine-1, and its results wait here" in said
    assert tree(board.home) == before
    assert "This board is mine-1" in fleet.enrol(board)  # again changes nothing either
    assert tree(board.home) == before


def test_no_profile_and_no_configuration(fleet: Fleet, tmp_path: Path) -> None:
    fleet.enroll("bare-1", "--facility", "Bare")
    config = tmp_path / "etc" / "device.toml"
    said = run(
        "enrol", fleet.out / "bare-1.enrol", "--config", config, typed=fleet.code("bare-1") + "\n", program="edge.cli", fails=True
    )
    assert "--profile" in said
    assert not config.parent.exists()


def test_forty_devices_at_once(tmp_path: Path) -> None:
    fleet = make_fleet(tmp_path / "fleet")
    table = tmp_path / "devices.csv"
    rows = [f"clinic-{number},Clinic {number // 2},note" for number in range(40)]
    table.write_text("device,facility,more\n" + "\n".join([*rows[:39], "clinic 39,Clinic 19,x"]) + "\n")
    said = fleet.enroll("--table", table, fails=True)
    assert "'clinic 39'" in said
    assert "line 41" in said
    assert not fleet.out.exists()
    table.write_text("device,facility,more\n" + "\n".join(rows) + "\n")
    fleet.enroll("--table", table)
    assert len(list(fleet.out.iterdir())) == 80
    assert len({fleet.code(f"clinic-{number}") for number in range(40)}) == 40
    # Two devices of a clinic have one key, two clinics have two.
    assert fleet.site_key_lines("clinic-2") == fleet.site_key_lines("clinic-3")
    assert fleet.site_key_lines("clinic-2") != fleet.site_key_lines("clinic-4")
    assert "clinic-0 (" in fleet.enroll("--table", table, fails=True)


def test_the_second_device_of_a_site_gets_the_key_from_the_paper(tmp_path: Path) -> None:
    fleet = make_fleet(tmp_path / "fleet")
    fleet.enroll("a-1", "--facility", "Site A")
    fleet.enroll("b-1", "--facility", "Site B")
    lines, wrong = fleet.site_key_lines("a-1"), fleet.site_key_lines("b-1")
    first = fleet.device("a-1")
    key = first.state / "identity" / "site.key"
    said = fleet.enroll("a-2", "--facility", "Site A")
    assert "has no site key" in said
    assert "\f" not in (fleet.out / "a-2.txt").read_text()
    board = fleet.board("a-2")
    before = tree(board.home)
    code = fleet.code("a-2") + "\n"
    assert "take the paper of that key" in fleet.enrol(board, code + wrong, fails=True)
    assert tree(board.home) == before
    assert "cxr-edge key restore" in fleet.enrol(board)
    second = board.state / "identity" / "site.key"
    assert not second.exists()
    restore = ("key", "restore", "--config", board.config)
    assert "take the paper of that key" in run(*restore, typed=wrong, program="edge.cli", fails=True)
    run(*restore, typed=lines, program="edge.cli")
    assert second.read_bytes() == key.read_bytes()
    # Or typed with the code, or at the centre.
    for name, at_the_centre in (("a-3", False), ("a-4", True)):
        fleet.enroll(name, "--facility", "Site A", *(("--site-key-paper", "-") if at_the_centre else ()), typed=lines)
        board = fleet.board(name)
        said = fleet.enrol(board, fleet.code(name) + "\n" + ("" if at_the_centre else lines))
        assert "restore" not in said
        assert (board.state / "identity" / "site.key").read_bytes() == key.read_bytes()
    said = fleet.enroll("a-5", "--facility", "Site A", "--site-key-paper", "-", typed=wrong, fails=True)
    assert "Take the paper of that" in said
    # On purpose another one.
    said = fleet.enroll("a-6", "--facility", "Site A", "--new-site-key")
    assert "are not joined at the centre" in said
    assert fleet.site_key_lines("a-6") != lines


def test_a_replaced_card_is_the_same_device_with_another_epoch(tmp_path: Path) -> None:
    fleet = make_fleet(tmp_path / "fleet")
    fleet.enroll("clinic-1", "--facility", "Clinic 1")
    lines = fleet.site_key_lines("clinic-1")
    with fleet.mosquitto(), fleet.aggregator():
        first = fleet.remote("clinic-1", tmp_path / "first")
        first.record(3)
        with first.relay():
            wait_for(lambda: first.waiting() == 0, "the first card delivers")
            wait_for(lambda: fleet.standing("clinic-1")["standing"] == "ok", "it has renewed its certificate")
            first.record(1)
            wait_for(lambda: first.waiting() == 0, "it delivers with the new one")
            assert "say --again" in fleet.enroll("clinic-1", "--facility", "Clinic 1", fails=True)
            assert "is of 'Clinic 1'" in fleet.enroll("clinic-1", "--facility", "Clinic 2", "--again", fails=True)
            fleet.enroll("clinic-1", "--facility", "Clinic 1", "--again")
            # The lost card, wherever it is now, is shut out at once, and keeps what it has.
            wait_for(lambda: first.said("the connection was lost"), "its connection is cut", 10)
            first.record(1)
            wait_for(lambda: first.said("may not take this device's certificate"), "it says why", 20)
            assert first.waiting() == 1
            second = fleet.remote("clinic-1", tmp_path / "second")
            second.record(2)
            with second.relay():
                wait_for(lambda: second.waiting() == 0, "the new card delivers")
        epochs = epoch_of(first), epoch_of(second)
        assert sorted(fleet.outcomes("clinic-1")) == sorted(
            [*((epochs[0], seq) for seq in range(1, 5)), *((epochs[1], seq) for seq in range(1, 3))]
        )
    assert lines  # the key comes from the same paper
    assert "has no site key" not in fleet.enroll(
        "clinic-1", "--facility", "Clinic 1", "--again", "--site-key-paper", "-", typed=lines
    )


def epoch_of(card: object) -> str:
    import contextlib

    with contextlib.closing(card.outbox()) as outbox:  # type: ignore[attr-defined]
        return str(outbox.epoch)


def test_a_lost_card_does_not_get_a_certificate_of_the_new_one(tmp_path: Path) -> None:
    """It has the same name, and is connected until it is shut out: it must never be taken for the card that was just enrolled."""
    fleet = make_fleet(tmp_path / "fleet")
    fleet.enroll("clinic-1", "--facility", "Clinic 1")
    with fleet.mosquitto(), fleet.aggregator():
        card = fleet.remote("clinic-1", more=["status_every_s = 0.05"])  # speaks all the time
        card.record(1)
        with card.relay():
            for _ in range(3):
                wait_for(lambda: fleet.standing("clinic-1")["standing"] == "ok", "it has a certificate of its own")
                pem = (card.home / "state" / "identity" / "device.pem").read_bytes()
                fleet.enroll("clinic-1", "--facility", "Clinic 1", "--again")
                time.sleep(2)
                assert (card.home / "state" / "identity" / "device.pem").read_bytes() == pem
                assert fleet.standing("clinic-1")["standing"] == "waiting"
                fleet.enrol(Device(card.home, "clinic-1"))  # found again, it is enrolled anew


def test_nobody_takes_over_the_session_of_another(tmp_path: Path) -> None:
    fleet = make_fleet(tmp_path / "fleet")
    fleet.enroll("clinic-1", "--facility", "Clinic 1")
    fleet.enroll("clinic-2", "--facility", "Clinic 2")
    one, two = fleet.device("clinic-1"), fleet.device("clinic-2")
    with (
        fleet.mosquitto() as broker,
        fleet.aggregator() as centre,
        wire_device("clinic-1", broker.port, fleet.tls(one.home)) as victim,
    ):
        for client_id in (b"clinic-1", b"test-clinic-1", b"aggregator", b"cxr-aggregator"):
            with wire_device("clinic-2", broker.port, fleet.tls(two.home)) as thief:
                thief.client._client_id = client_id
                thief.client.reconnect()
                wait_for(lambda: thief.connected.is_set() and len(thief.granted) > 1, "it comes back under another client id")
        assert victim.disconnections == 0
        assert not centre.said("is lost")
        # Nor does the aggregator lose its own: what comes while it is away waits for it.
        end(centre.process)
        assert victim.answer_to(victim.send(messages.result("clinic-1", 1))) == "Success"
        with fleet.aggregator():
            wait_for(lambda: fleet.outcomes("clinic-1"), "the aggregator gets what came meanwhile")


def test_names_of_the_centre_are_no_devices(fleet: Fleet) -> None:
    for name in ("aggregator", "operator", "dashboard", "centre", "Broker"):
        assert "of the centre's own" in fleet.enroll(name, "--facility", "X", fails=True)
    assert "no device name" in fleet.enroll("a/b", "--facility", "X", fails=True)
    assert "no name of a facility" in fleet.enroll("ok", "--facility", "X/../", fails=True)


def test_no_authority(tmp_path: Path) -> None:
    for command in (("fleet",), ("revoke", "x"), ("enroll", "x", "--facility", "y", "--out", tmp_path / "out")):
        assert "There is no authority in" in run(*command, "--dir", tmp_path / "none", fails=True)
    assert not (tmp_path / "none").exists()
    (tmp_path / "open").mkdir(mode=0o755)
    assert "chmod 700" in run("init", tmp_path / "open", "--host", "127.0.0.1", fails=True)
    assert "neither a name nor an address" in run("init", tmp_path / "new", "--host", "300.1.2.3", fails=True)
    shutil.rmtree(tmp_path / "open")
