"""Certificates that renew themselves, over the real broker and over HTTPS, in time and after a year without a link."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.fleet.authority import Authority
from edge.contract import codec
from edge.contract.messages import Reply
from edge.contract.topics import Channel
from edge.enrolment.identity import new_key_pair
from edge.enrolment.validity import good_until
from tests.soak.clocks import Clocks
from tests.support import messages
from tests.support.fleet import Fleet, lets_in, make_fleet
from tests.support.processes import wait_for
from tests.support.remote import Remote
from tests.support.wire_device import WireDevice, wire_device


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    made = make_fleet(tmp_path / "fleet")
    made.enroll("clinic-1", "--facility", "Clinic")
    return made


def identity(card: Remote) -> Path:
    return card.home / "state" / "identity" / "device.pem"


def in_service(fleet: Fleet) -> bool:
    return bool(fleet.standing("clinic-1")["standing"] == "ok")


def test_the_key_of_the_file_is_replaced_at_the_first_contact_and_worth_nothing_then(fleet: Fleet) -> None:
    card = fleet.remote("clinic-1")
    first = identity(card).read_bytes()
    (stick := card.home / "stick.pem").write_bytes(first)
    with fleet.mosquitto(), fleet.aggregator():
        assert lets_in(fleet, stick)
        with card.relay():
            card.record(1)
            wait_for(lambda: in_service(fleet), "it has a certificate of its own")
            wait_for(lambda: card.waiting() == 0 and card.said("connected to") == 2, "it delivers with it")
        assert identity(card).read_bytes() != first
        assert lets_in(fleet, identity(card))
        assert not lets_in(fleet, stick), "who finds stick and code later has nothing"


def test_by_https_where_there_is_no_broker(fleet: Fleet) -> None:
    card = fleet.remote("clinic-1", more=["https_after_s = 0.2"])
    first = identity(card).read_bytes()
    with fleet.aggregator(connected=False), card.relay():
        card.record(1)
        wait_for(lambda: in_service(fleet), "it has a certificate of its own", 60)
        assert identity(card).read_bytes() != first
        card.record(1)
        wait_for(lambda: card.waiting() == 0, "it delivers with it", 60)
        assert len(fleet.outcomes("clinic-1")) == 2


def test_a_year_without_a_link_and_sixty_days_in_service(fleet: Fleet, tmp_path: Path) -> None:
    """The centre's clock runs ahead; the device's is as it is."""
    clocks = Clocks(tmp_path)
    card = fleet.remote("clinic-1")
    with fleet.mosquitto(), fleet.aggregator(), card.relay():
        card.record(1)
        wait_for(lambda: in_service(fleet) and card.waiting() == 0, "it is in service", 60)
    known = identity(card).read_bytes()
    for days, renewed in ((59.0, False), (61.0, True), (61.0 + 424.0, True)):
        clock = clocks.beside(days)
        with fleet.mosquitto(clock), fleet.aggregator(clock), card.relay():
            card.record(1)
            wait_for(lambda: card.waiting() == 0, f"it delivers after {days} days", 60)
            if renewed:
                wait_for(lambda: identity(card).read_bytes() != known, f"it renews after {days} days", 60)  # noqa: B023
        assert (identity(card).read_bytes() != known) == renewed
        known = identity(card).read_bytes()
    until = good_until(identity(card))
    assert until is not None
    # One day more than the certificate is good for, by a clock that is set.
    late = clocks.beside(61.0 + 424.0 + 426.0, synchronised=True)
    with fleet.mosquitto(late), fleet.aggregator(late), card.relay(late):
        card.record(1)
        wait_for(lambda: card.said("ask the centre for a new enrolment file"), "it says that it has to be enrolled again", 60)
        assert card.said(f"was good until {until:%Y-%m-%d}")
        assert card.waiting() == 1


class Scripted:
    """A device that answers the centre in its own way."""

    def __init__(self, device: WireDevice) -> None:
        self.device = device
        self.asked: list[str] = []
        self.certificates: list[str] = []
        device.client.message_callback_add(f"cxr/v1/{device.name}/command", self._on_command)
        device.client.subscribe(f"cxr/v1/{device.name}/command", 1)
        wait_for(lambda: len(device.granted) == 2, "the device listens for commands")
        self.request: str | None = None

    def _on_command(self, _client: object, _data: object, message: object) -> None:
        command = codec.decode_command(bytes(message.payload))  # type: ignore[attr-defined]
        if command.verb == "renew":
            self.asked.append(command.id)
        elif command.certificate is not None:
            self.certificates.append(command.certificate)

    def hello(self) -> None:
        self.device.send(messages.hello(self.device.name), Channel.HELLO)

    def reply(self, number: str, request: str) -> None:
        self.device.send(Reply(device=self.device.name, id=number, ok=True, request=request), Channel.REPLY)


def test_what_is_signed_and_what_is_not(fleet: Fleet) -> None:
    card = fleet.device("clinic-1")
    other = new_key_pair("clinic-2").request
    requests = (other, other.replace(other[60:64], "AAAA"), "-----BEGIN X-----\nAAAA\n-----END X-----\n")
    for seq, request in enumerate(requests, 1):
        with (
            fleet.mosquitto() as broker,
            fleet.aggregator() as centre,
            wire_device("clinic-1", broker.port, fleet.tls(card.home)) as device,
        ):
            scripted = Scripted(device)
            scripted.hello()
            wait_for(lambda: scripted.asked, "the centre asks")  # noqa: B023
            # For another name and for no sense nothing is signed, and that was the answer to this question.
            scripted.reply(scripted.asked[0], request)
            scripted.reply(scripted.asked[0], new_key_pair("clinic-1").request)
            scripted.hello()  # asked again only after a while
            device.send(messages.result("clinic-1", seq))
            device.wait_receipt(seq)
            wait_for(lambda: centre.said("in a way that is not understood"), "the centre says so")
            assert (len(scripted.asked), scripted.certificates) == (1, [])
    with (
        fleet.mosquitto() as broker,
        fleet.aggregator(),
        wire_device("clinic-1", broker.port, fleet.tls(card.home)) as device,
    ):
        scripted = Scripted(device)
        # Unasked, nothing is signed.
        scripted.reply("ab" * 16, new_key_pair("clinic-1").request)
        scripted.hello()
        wait_for(lambda: scripted.asked, "the centre asks")
        [number] = scripted.asked
        # To another question neither.
        scripted.reply("cd" * 16, new_key_pair("clinic-1").request)
        # Once for each question.
        for _ in range(3):
            scripted.reply(number, new_key_pair("clinic-1").request)
        wait_for(lambda: scripted.certificates, "the certificate comes")
        scripted.hello()
        device.send(messages.result("clinic-1", 4))
        device.wait_receipt(4)
        assert (len(scripted.certificates), scripted.asked) == (1, [number])
    # Not confirmed: the one of the enrolment is still good, and used as far as the centre knows.
    assert fleet.standing("clinic-1")["standing"] == "waiting"
    assert not Authority(fleet.dir).fleet().revoked


def test_an_answer_that_is_lost_harms_nothing(fleet: Fleet) -> None:
    card = fleet.remote("clinic-1")
    with fleet.mosquitto() as broker:
        with fleet.aggregator(), wire_device("clinic-1", broker.port, fleet.tls(card.home)) as device:
            scripted = Scripted(device)
            scripted.hello()
            wait_for(lambda: scripted.asked, "the centre asks")
            scripted.reply(scripted.asked[0], new_key_pair("clinic-1").request)
            wait_for(lambda: scripted.certificates, "the centre has signed; the device forgets it")
        with fleet.aggregator(), card.relay():
            card.record(1)
            wait_for(lambda: in_service(fleet), "it is asked again, and has its certificate", 60)
            wait_for(lambda: card.waiting() == 0, "it delivers")
