"""The relay: outcomes from the outbox to the centre over MQTT, receipts back into the outbox.

One connection at a time and one thread; a second way, where there is one, is stepped from the same loops. What the broker
acknowledges is only out of the window; what the centre receipts is out of the outbox's queue. Both ends and the broker may die at
any moment.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from edge.config import Device
from edge.contract.codec import decode_command, decode_receipt, encode
from edge.contract.errors import ContractError
from edge.contract.messages import Status
from edge.contract.topics import Channel, topic
from edge.delivery.commands import Commands
from edge.delivery.mqtt import NO_SUBSCRIBER, Acked, Closed, Connected, Event, Link, Message
from edge.delivery.receipts import Receipts
from edge.delivery.status import State
from edge.delivery.window import Delivery
from edge.errors import CxrError, OutboxFull
from edge.outbox.writer import Outbox
from edge.unattended.lifecycle import Stop
from edge.unattended.notify import nothing

log = logging.getLogger(__name__)

_LOOK_EVERY_S = 0.1
_CONNECT_WITHIN_S = 10.0  # less than a keepalive, so that what is said is what happened
_ANSWER_WITHIN_S = 60.0
"""A broker that acknowledges nothing for so long, and for the receipt timeout, is left: it may answer pings for ever."""

_BACKOFF_S = (1.0, 60.0)
_FORGET_EVERY_S = 3600.0

RENEWED = "renewed"
"""Why a connection ended: the next one begins at once, with the new certificate."""


class Route(Protocol):
    """Another way to the centre, beside MQTT."""

    def step(self, now: float) -> None:
        """Do what is due at `now` (monotonic seconds), without waiting."""
        ...

    def first_way_works(self, now: float) -> None:
        """MQTT brought a receipt that something waited for."""
        ...


class Relay:
    """Sends for one device; `connect` opens a `Link`, so that tests can pass another."""

    def __init__(
        self,
        device: Device,
        outbox: Outbox,
        status: Callable[[State], Status],
        connect: Callable[[str, bytes], Link],
        second: Callable[[Receipts, Commands], Route] | None = None,
        progress: Callable[[], object] = nothing,
    ) -> None:
        """Wire one up.

        Args:
            device: its configuration.
            outbox: where outcomes wait.
            status: makes the present status.
            connect: opens a link, given the topic and the payload of its last will.
            second: makes the other way, if any.
            progress: called when the outbox was looked at, and the broker and the other way were attended to.
        """
        self._device = device
        self._outbox = outbox
        self._status = status
        self._connect = connect
        self._topic = {channel: topic(device.device, channel) for channel in Channel}
        self._delivery = Delivery(outbox, window=device.relay.window, timeout_s=device.relay.receipt_timeout_s)
        self.receipts = Receipts(outbox, self._delivery.receipted, self._delivery.start_over)
        self._commands = Commands(device)
        self._second = second(self.receipts, self._commands) if second is not None else None
        self._progress = progress
        self._said: set[str] = set()
        self.connected = False
        """Whether the broker has accepted this device, for who wants to tell."""

    def run(self, stop: Stop) -> None:
        """Connect, deliver, reconnect with a growing, jittered pause, until told to stop.

        Raises:
            OutboxDamaged: if another process has found the outbox damaged.
        """
        pause = _BACKOFF_S[0]
        while not stop.is_set():
            try:
                link = self._connect(self._topic[Channel.STATUS], encode(self._status("offline")))
            except CxrError as error:
                why = str(error)
            else:
                began = time.monotonic()
                why = self._session(link, stop)
                if time.monotonic() - began > _BACKOFF_S[1]:
                    pause = _BACKOFF_S[0]
            if stop.is_set():
                return
            if why == RENEWED:
                continue
            self._say_once(why, logging.WARNING)
            until = time.monotonic() + pause * random.uniform(0.5, 1.0)
            while time.monotonic() < until and not stop.is_set():
                self._outbox.raise_if_damaged()
                self._outbox.data_version()
                self._step_second()
                self._progress()
                time.sleep(0.1)
            pause = min(pause * 2, _BACKOFF_S[1])

    def _session(self, link: Link, stop: Stop) -> str:
        """Use one connection until it ends; return why it did."""
        if (why := self._await_connection(link, stop)) is not None:
            link.close()
            return why
        self._said.clear()
        log.info("connected to %s", self._device.relay.url)
        self.connected = True
        try:
            self._greet(link)
            return self._deliver(link, stop)
        finally:
            self.connected = False

    def _await_connection(self, link: Link, stop: Stop) -> str | None:
        deadline = time.monotonic() + _CONNECT_WITHIN_S
        while not stop.is_set() and time.monotonic() < deadline:
            self._step_second()
            for event in _drain(link, 0.1):
                if isinstance(event, Connected):
                    return None
                if isinstance(event, Closed):
                    return event.why
        return "the broker did not answer the connection request"

    def _greet(self, link: Link) -> None:
        self._delivery.reconnected(time.monotonic())
        link.subscribe([self._topic[Channel.RECEIPT], self._topic[Channel.COMMAND]])
        link.publish(self._topic[Channel.STATUS], encode(self._status("online")), retain=True)
        self._ask(link, again=False)

    def _ask(self, link: Link, *, again: bool) -> None:
        """Say where this device stands in each epoch, and ask where the centre does; again: where it has not answered yet."""
        for hello in self.receipts.ask("mqtt", again=again):
            link.publish(self._topic[Channel.HELLO], encode(hello))

    def _deliver(self, link: Link, stop: Stop) -> str:
        version = -1
        next_look = 0.0
        next_forget = time.monotonic() + 60.0
        next_status = time.monotonic() + self._device.relay.status_every_s
        while not stop.is_set():
            now = time.monotonic()
            self._step_second()
            if now >= next_look:
                next_look = now + _LOOK_EVERY_S
                self._outbox.raise_if_damaged()
                if self._delivery.unanswered_for(now) > max(self._device.relay.receipt_timeout_s, _ANSWER_WITHIN_S):
                    link.close()
                    return "the broker acknowledges nothing that it is sent"
                if (latest := self._outbox.data_version()) != version:
                    version = latest
                    self._delivery.wake()
                self._progress()
            if now >= next_status:
                next_status = now + self._device.relay.status_every_s
                link.publish(self._topic[Channel.STATUS], encode(self._status("online")), retain=True)
                self._ask(link, again=True)  # a greeting that no aggregator heard is lost
            if now >= next_forget:
                next_forget = now + _FORGET_EVERY_S
                self._tidy()
            while (row := self._delivery.take(now)) is not None:
                self._delivery.published(link.publish(self._topic[Channel.RESULT], row.payload), row.number, now)
                self.receipts.offered(row.number)
            for event in _drain(link, max(0.0, min(next_look, self._delivery.next_due()) - now)):
                if isinstance(event, Closed):
                    return f"the connection was lost: {event.why}"
                if isinstance(event, Acked):
                    self._on_acked(event, now)
                elif isinstance(event, Message):
                    self._on_message(link, event)
            if self._commands.take_renewed():
                link.poll(0.2)
                link.close()
                return RENEWED
        link.publish(self._topic[Channel.STATUS], encode(self._status("offline")), retain=True)
        link.poll(0.2)
        link.close()
        return "stopped"

    def _on_acked(self, event: Acked, now: float) -> None:
        if self._delivery.acknowledged(event.mid, now) is None:
            return
        if event.code >= 0x80:
            self._say_once(
                f"The broker refuses this device's results ({event.name}). They wait here and are tried again; "
                "check the device's name, its certificate and the broker's ACL.",
                logging.ERROR,
            )
        elif event.code == NO_SUBSCRIBER:
            self._say_once("The broker has the results, but no aggregator is listening; they wait here.", logging.WARNING)

    def _on_message(self, link: Link, message: Message) -> None:
        try:
            if message.topic == self._topic[Channel.RECEIPT]:
                if self.receipts.take(decode_receipt(message.payload)) and self._second is not None:
                    self._second.first_way_works(time.monotonic())
            elif message.topic == self._topic[Channel.COMMAND]:
                reply = self._commands.answer(decode_command(message.payload))
                link.publish(self._topic[Channel.REPLY], encode(reply))
        except ContractError as error:
            self._say_once(f"A message of the centre was not understood ({error}).", logging.WARNING)
        except OutboxFull as error:  # the receipt is not noted: the outcome is sent again, and so is the receipt
            self._say_once(str(error), logging.WARNING)

    def _tidy(self) -> None:
        try:
            self._outbox.forget(self._device.storage.keep_receipted)
        except OutboxFull as error:
            self._say_once(str(error), logging.WARNING)

    def _step_second(self) -> None:
        if self._second is not None:
            self._second.step(time.monotonic())

    def _say_once(self, text: str, level: int) -> None:
        if text not in self._said:
            self._said.add(text)
            log.log(level, "%s", text)


def _drain(link: Link, timeout_s: float) -> Iterator[Event]:
    events = link.poll(timeout_s)
    while events:
        yield events.popleft()
