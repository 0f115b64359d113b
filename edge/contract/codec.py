"""Bytes to messages and back: JSON, at most `MAX_BYTES`, unknown fields accepted, unknown versions refused with a reason."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from edge.contract.errors import UNREADABLE, ContractError
from edge.contract.messages import MAX_BYTES, SCHEMA, AnyMessage, AnyOutcome, Command, Hello, Receipt, Reply, Status


class _Version(msgspec.Struct):
    schema: int


Message = TypeVar("Message", AnyOutcome, Status, Hello, Receipt, Command, Reply)

_encoder = msgspec.json.Encoder()
_version = msgspec.json.Decoder(_Version)
_outcome = msgspec.json.Decoder(AnyOutcome)
_status = msgspec.json.Decoder(Status)
_hello = msgspec.json.Decoder(Hello)
_receipt = msgspec.json.Decoder(Receipt)
_command = msgspec.json.Decoder(Command)
_reply = msgspec.json.Decoder(Reply)


def encode(message: AnyMessage) -> bytes:
    """Return the bytes that go on the wire.

    Raises:
        ContractError: `too_large` if they are more than `MAX_BYTES`.
    """
    payload = _encoder.encode(message)
    if len(payload) > MAX_BYTES:
        raise ContractError("too_large", f"{len(payload)} bytes, the contract allows {MAX_BYTES}")
    return payload


def decode_outcome(payload: bytes) -> AnyOutcome:
    """Return the outcome in `payload`. Raises ContractError: too_large, not_json, unknown_schema, invalid."""
    message: AnyOutcome = _decode(_outcome, payload)
    return message


def recorded_outcome(payload: bytes) -> AnyOutcome | None:
    """Return an outcome of this device's own outbox; None where the disk has changed it since, or another version recorded it."""
    try:
        return decode_outcome(payload)
    except ContractError:
        return None


def decode_status(payload: bytes) -> Status:
    """Return the status in `payload`. Raises as `decode_outcome`."""
    return _decode(_status, payload)


def decode_hello(payload: bytes) -> Hello:
    """Return the hello in `payload`. Raises as `decode_outcome`."""
    return _decode(_hello, payload)


def decode_receipt(payload: bytes) -> Receipt:
    """Return the receipt in `payload`. Raises as `decode_outcome`."""
    return _decode(_receipt, payload)


def decode_command(payload: bytes) -> Command:
    """Return the command in `payload`. Raises as `decode_outcome`."""
    return _decode(_command, payload)


def decode_reply(payload: bytes) -> Reply:
    """Return the reply in `payload`. Raises as `decode_outcome`."""
    return _decode(_reply, payload)


def _decode(decoder: msgspec.json.Decoder[Message], payload: bytes) -> Message:
    if len(payload) > MAX_BYTES:
        raise ContractError("too_large", f"{len(payload)} bytes, the contract allows {MAX_BYTES}")
    try:
        message = decoder.decode(payload)
    except msgspec.ValidationError as error:
        # A newer version may well break today's rules, so the version is looked at before the blame is laid.
        _check_version(payload)
        raise ContractError("invalid", str(error)) from None
    except UNREADABLE as error:
        raise ContractError("not_json", str(error)) from None
    if message.schema != SCHEMA:
        raise ContractError("unknown_schema", f"schema {message.schema}, this software reads {SCHEMA}")
    return message


def _check_version(payload: bytes) -> None:
    try:
        version = _version.decode(payload).schema
    except UNREADABLE:  # it reads further than the decoder that stopped at the first wrong field
        return
    if version != SCHEMA:
        raise ContractError("unknown_schema", f"schema {version}, this software reads {SCHEMA}")
