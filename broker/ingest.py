"""From a message to what it means: pure, total, and the only place that judges what devices send.

Whatever the topic and the bytes are, `classify` returns exactly one decision and raises nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, TypeAlias

import msgspec

from edge.contract import codec, topics
from edge.contract.errors import UNREADABLE, ContractError
from edge.contract.messages import AnyOutcome, Hello, Reply, Status
from edge.contract.topics import Channel

KEPT_BYTES = 16_384
"""How much of a refused payload is kept for people to look at."""

_MAX_SEQ = 2**53 - 1
_EPOCH = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Inbound:
    """One MQTT message. `received_ms` is the centre's clock, milliseconds since 1970 UTC; `retained` ones are old news."""

    topic: str
    payload: bytes
    received_ms: int
    retained: bool = False


@dataclass(frozen=True, slots=True)
class Accepted:
    """An outcome that follows the contract, and the very bytes that carried it."""

    outcome: AnyOutcome
    payload: bytes
    received_ms: int
    topic: str


@dataclass(frozen=True, slots=True)
class Rejected:
    """A message for quarantine.

    `device` is who sent it according to the topic, None if even that cannot be said. With `delivered`, `epoch` and `seq` name
    the outcome that the device may stop sending: then they are never None.
    """

    reason: str
    detail: str
    topic: str
    payload: bytes
    received_ms: int
    device: str | None = None
    epoch: str | None = None
    seq: int | None = None
    delivered: bool = False


@dataclass(frozen=True, slots=True)
class Reported:
    """How a device says it is."""

    status: Status
    payload: bytes
    received_ms: int
    retained: bool


@dataclass(frozen=True, slots=True)
class Greeted:
    """A device asks what the centre has of it."""

    hello: Hello
    received_ms: int


@dataclass(frozen=True, slots=True)
class Replied:
    """A device answered a command; whoever sent the command listens for it too, so here it is a sign of life."""

    reply: Reply
    received_ms: int


Decision: TypeAlias = Accepted | Rejected | Reported | Greeted | Replied


class _Loose(msgspec.Struct):
    device: Any = None
    epoch: Any = None
    seq: Any = None


_loose = msgspec.json.Decoder(_Loose)


def classify(message: Inbound) -> Decision:
    """Decide what `message` is. Never raises; what does not follow the contract comes back as `Rejected`."""
    try:
        device, channel = topics.parse(message.topic)
    except ContractError as error:
        return _rejected(message, error.reason, error.detail)
    try:
        return _understood(message, device, channel)
    except ContractError as error:
        return _rejected(message, error.reason, error.detail, device, channel)
    except Exception as error:  # whatever a device sends must end neither this process nor its next start
        return _rejected(message, "invalid", f"this software fails to read it ({type(error).__name__})", device, channel)


def _understood(message: Inbound, device: str, channel: Channel) -> Decision:
    payload, at = message.payload, message.received_ms
    if channel is Channel.RESULT:
        outcome = codec.decode_outcome(payload)
        _same_device(device, outcome.device)
        _whole_epoch(outcome.epoch)
        return Accepted(outcome, payload, at, message.topic)
    if channel is Channel.STATUS:
        status = codec.decode_status(payload)
        _same_device(device, status.device)
        return Reported(status, payload, at, message.retained)
    if channel is Channel.HELLO:
        hello = codec.decode_hello(payload)
        _same_device(device, hello.device)
        _whole_epoch(hello.epoch, *(past.epoch for past in hello.closed))
        return Greeted(hello, at)
    if channel is Channel.REPLY:
        reply = codec.decode_reply(payload)
        _same_device(device, reply.device)
        return Replied(reply, at)
    raise ContractError("bad_topic", f"no device writes to {channel.value}")


def _same_device(topic: str, payload: str) -> None:
    if topic != payload:
        raise ContractError("identity_mismatch", f"the topic says {topic!r}, the message says {payload!r}")


def _whole_epoch(*epochs: str) -> None:
    """The contract's pattern lets a line feed at the end through; as a key it must be exact."""
    if not all(_EPOCH.fullmatch(epoch) for epoch in epochs):
        raise ContractError("invalid", "the epoch is not 32 hexadecimal digits")


def _rejected(message: Inbound, reason: str, detail: str, device: str | None = None, channel: Channel | None = None) -> Rejected:
    epoch, seq, delivered = None, None, False
    if device is not None and channel is Channel.RESULT:
        epoch, seq, delivered = _loosely(message.payload, device)
    return Rejected(
        reason=reason,
        detail=detail,
        topic=message.topic,
        payload=message.payload[:KEPT_BYTES],
        received_ms=message.received_ms,
        device=device,
        epoch=epoch,
        seq=seq,
        delivered=delivered,
    )


def _loosely(payload: bytes, device: str) -> tuple[str | None, int | None, bool]:
    """Read which outcome a broken message was. The last value: whether the device may be told to stop sending it."""
    if len(payload) > KEPT_BYTES:
        return None, None, False
    try:
        loose = _loose.decode(payload)
    except UNREADABLE:
        return None, None, False
    epoch = loose.epoch if isinstance(loose.epoch, str) and _EPOCH.fullmatch(loose.epoch) else None
    seq = loose.seq if type(loose.seq) is int and 1 <= loose.seq <= _MAX_SEQ else None
    return epoch, seq, epoch is not None and seq is not None and loose.device == device
