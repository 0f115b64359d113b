"""Whatever is wrong with TLS, a device keeps its results, says why, and connects in no other way. Real relay, real Mosquitto."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.soak.clocks import Clocks
from tests.support.authority import Authority
from tests.support.mosquitto import Mosquitto, fleet_mosquitto, loopback_mosquitto, write_fleet
from tests.support.processes import free_port, wait_for
from tests.support.remote import Remote, remote, tls


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


def card(home: Path, port: int, authority: Authority, trusts: Authority | None = None) -> Remote:
    made = remote(home, "clinic-1", f"mqtts://127.0.0.1:{port}", **tls((trusts or authority).ca, authority.client("clinic-1")))
    made.record(1)
    return made


def refuses(device: Remote, why: str, attempts: Callable[[], int], clock: dict[str, str] | None = None) -> None:
    """Two attempts, told by who listens, and what is said about them; nothing was delivered, and no connection made."""
    with device.relay(clock):
        wait_for(lambda: device.said(why), f"it says {why!r}", 20)
        wait_for(lambda: attempts() >= 2, "it tries again", 20)
    assert device.said("connected to") == 0
    assert device.said("Traceback") == 0
    assert device.waiting() == 1


def logged(broker: Mosquitto, words: str) -> Callable[[], int]:
    """Return what counts how often a broker has said something."""
    return lambda: broker.log.read_text(errors="replace").count(words)


def test_a_broker_of_another_authority(tmp_path: Path, authority: Authority) -> None:
    with fleet_mosquitto(tmp_path / "fleet", authority) as broker:
        device = card(tmp_path / "card", broker.port, authority, trusts=Authority(tmp_path / "other"))
        refuses(device, "certificate verify failed", logged(broker, "unknown ca"))


def test_a_broker_under_another_name(tmp_path: Path, authority: Authority) -> None:
    port, folder = free_port(), tmp_path / "fleet"
    write_fleet(folder, port, authority)
    stranger = authority.server("stranger", hosts=["elsewhere.example"])
    (folder / "broker.pem").write_bytes(stranger.key.read_bytes() + stranger.cert.read_bytes())
    with running_broker(folder, port) as broker:
        refuses(card(tmp_path / "card", port, authority), "not valid for '127.0.0.1'", logged(broker, "bad certificate"))


def test_a_broker_whose_certificate_is_over_by_a_clock_that_is_set(tmp_path: Path, authority: Authority) -> None:
    port, folder = free_port(), tmp_path / "fleet"
    write_fleet(folder, port, authority)
    late = authority.server("late", days_ago=2)
    (folder / "broker.pem").write_bytes(late.key.read_bytes() + late.cert.read_bytes())
    clock = Clocks(tmp_path).beside(0, synchronised=True)
    with running_broker(folder, port) as broker:
        device = card(tmp_path / "card", port, authority)
        refuses(device, "certificate has expired", logged(broker, "certificate expired"), clock)
        # A board whose clock nobody sets cannot tell: chain and name count, and results arrive.
        with device.relay(Clocks(tmp_path).environment("1970")):
            wait_for(lambda: device.said("connected to"), "it connects")


def test_a_broker_without_tls(tmp_path: Path, authority: Authority) -> None:
    folder = tmp_path / "plain"
    folder.mkdir()
    with loopback_mosquitto(folder) as broker:
        device = card(tmp_path / "card", broker.port, authority)
        # Mosquitto says nothing of what it does not understand; the next test counts.
        refuses(device, "cannot be reached", lambda: 2)


def test_a_listener_that_speaks_mqtt_in_the_clear_gets_not_a_byte_of_it(tmp_path: Path, authority: Authority) -> None:
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    near, _ = listener.accept()
                    with near:
                        heard.append(near.recv(4096))
                        near.sendall(b"\x20\x03\x00\x00\x00")  # "accepted", before any handshake

        threading.Thread(target=accept, daemon=True).start()
        device = card(tmp_path / "card", listener.getsockname()[1], authority)
        refuses(device, "cannot be reached", lambda: len(heard))
        listener.shutdown(socket.SHUT_RDWR)
    assert all(piece[:2] == b"\x16\x03" for piece in heard), heard  # TLS handshake records


def test_a_device_of_another_authority(tmp_path: Path, authority: Authority) -> None:
    with fleet_mosquitto(tmp_path / "fleet", authority) as broker:
        stranger = Authority(tmp_path / "other").client("clinic-1")
        device = remote(tmp_path / "card", "clinic-1", f"mqtts://127.0.0.1:{broker.port}", **tls(authority.ca, stranger))
        device.record(1)
        refuses(device, "may not take this device's certificate", logged(broker, "certificate verify failed"))


@contextlib.contextmanager
def running_broker(folder: Path, port: int) -> Iterator[Mosquitto]:
    broker = Mosquitto(folder / "mosquitto.conf", port, folder / "mosquitto.log")
    broker.start()
    try:
        yield broker
    finally:
        broker.stop()
