from __future__ import annotations

import gc
from pathlib import Path

import pytest

from broker.errors import LinkError
from broker.mqtt import MAX_PACKET, Address, PahoLink, new_client
from tests.support.processes import wait_for
from tests.support.raw import raw_server


@pytest.mark.parametrize(
    ("url", "host", "port", "tls"),
    [
        ("mqtt://127.0.0.1:1884", "127.0.0.1", 1884, False),
        ("mqtt://broker.example", "broker.example", 1883, False),
        ("mqtts://broker.example/", "broker.example", 8883, True),
        ("mqtt://[::1]:1", "::1", 1, False),
    ],
)
def test_addresses(url: str, host: str, port: int, tls: bool) -> None:
    address = Address.parse(url)
    assert (address.host, address.port, address.tls) == (host, port, tls)


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:1883", "http://h", "mqtt://", "mqtt://h:0", "mqtt://h:99999", "mqtt://h:x", "mqtt://h/topic"]
)
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(LinkError, match="no broker address"):
        Address.parse(url)


def test_certificates_need_tls_and_each_other() -> None:
    with pytest.raises(LinkError, match="mqtts"):
        Address.parse("mqtt://h", ca=Path("ca.pem"))
    with pytest.raises(LinkError, match="together"):
        Address.parse("mqtts://h", cert=Path("a.pem"))


def test_certificates_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    with pytest.raises(LinkError, match="certificates cannot be used"):
        new_client(Address.parse("mqtts://h", ca=tmp_path / "ca.pem"), "x")


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")  # paho closes late
def test_the_broker_is_told_the_largest_packet() -> None:
    heard: list[bytes] = []
    with raw_server(lambda near: heard.append(near.recv(65536))) as port:
        link = PahoLink(Address("127.0.0.1", port))
        link.start()
        wait_for(lambda: heard, "it connects")
        link.close()
    del link
    gc.collect()
    assert b"\x27" + MAX_PACKET.to_bytes(4, "big") in heard[0]


def test_a_link_without_a_connection_publishes_nothing_and_receives_nothing() -> None:
    link = PahoLink(Address("127.0.0.1", 1))
    link.publish("cxr/v1/dev-a/receipt", b"{}")
    assert link._client._out_messages == {}
    assert link.receive(10, 0.0, 0.01) == []
