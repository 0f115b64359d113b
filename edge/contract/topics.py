"""MQTT topics, built and parsed here and nowhere else: `cxr/v1/{device}/{channel}`."""

from __future__ import annotations

import enum
import re

from edge.contract.errors import ContractError

PREFIX = "cxr/v1"

_DEVICE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


class Channel(str, enum.Enum):
    """What a topic carries. Devices write the first four, the centre writes the last two."""

    RESULT = "result"
    STATUS = "status"
    HELLO = "hello"
    REPLY = "reply"
    RECEIPT = "receipt"
    COMMAND = "command"


def topic(device: str, channel: Channel) -> str:
    """Return the topic of one device's channel.

    Raises:
        ContractError: `bad_device` if the name could not stand in a topic.
    """
    if not _DEVICE.fullmatch(device):
        raise ContractError("bad_device", f"{device!r} is no device name: letters, digits, - and _, at most 64")
    return f"{PREFIX}/{device}/{channel.value}"


def every_device(channel: Channel) -> str:
    """Return the filter that matches one channel of all devices."""
    return f"{PREFIX}/+/{channel.value}"


def parse(name: str) -> tuple[str, Channel]:
    """Return (device, channel) of a topic.

    Raises:
        ContractError: `bad_topic` if it is not one of ours.
    """
    parts = name.split("/")
    if len(parts) != 4 or "/".join(parts[:2]) != PREFIX or not _DEVICE.fullmatch(parts[2]):
        raise ContractError("bad_topic", f"{name[:120]!r} is no topic of {PREFIX}")
    try:
        return parts[2], Channel(parts[3])
    except ValueError:
        raise ContractError("bad_topic", f"{name[:120]!r} names no channel of {PREFIX}") from None
