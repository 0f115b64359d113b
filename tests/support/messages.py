"""Outcomes as a device would send them, with made-up values."""

from __future__ import annotations

from typing import Any

from edge.contract import codec, topics
from edge.contract.messages import AnyMessage, Failure, Hello, Refusal, Result, Status, Void
from edge.contract.topics import Channel

EPOCH = "0123456789abcdef" * 2
OTHER_EPOCH = "fedcba9876543210" * 2
MODEL = "c" * 64


def shared(device: str, seq: int, epoch: str = EPOCH) -> dict[str, Any]:
    """The fields that every outcome has."""
    return {
        "device": device,
        "facility": "District clinic 7",
        "epoch": epoch,
        "seq": seq,
        "source_key": f"{seq:064x}",
        "key_id": "00c0ffee",
        "software": "0.1.0",
        "boot_id": "01234567-89ab-cdef-0123-456789abcdef",
        "monotonic_ns": 1_000_000 * seq,
        "recorded_at": "2026-01-02T03:04:05Z",
        "clock_synchronised": True,
        "exam_date": "2026-01-02",
    }


def result(device: str = "dev-a", seq: int = 1, epoch: str = EPOCH, **changes: Any) -> Result:
    """An answer; any field can be changed."""
    fields: dict[str, Any] = shared(device, seq, epoch) | {
        "pixel_hash": "b" * 64,
        "probabilities": {"covid": 0.72, "normal": 0.08, "pneumonia": 0.2},
        "label": "covid",
        "abstained": False,
        "threshold": 0.5,
        "model": MODEL,
        "preprocessing": 1,
        "heat": {"image_left_upper": 0.1, "image_left_lower": 0.55, "image_right_upper": 0.05, "image_right_lower": 0.3},
        "timings_ms": {"decode": 20.0, "classify": 3.5},
    }
    return Result(**(fields | changes))


def refusal(device: str = "dev-a", seq: int = 1, epoch: str = EPOCH, reasons: tuple[str, ...] = ("not_a_radiograph",)) -> Refusal:
    """A picture that got no answer."""
    return Refusal(**shared(device, seq, epoch), reasons=list(reasons))


def failure(device: str = "dev-a", seq: int = 1, epoch: str = EPOCH, reasons: tuple[str, ...] = ("damaged",)) -> Failure:
    """A file that could not be read."""
    return Failure(**shared(device, seq, epoch), reasons=list(reasons))


def void(device: str, seq: int, voids: int, epoch: str = EPOCH) -> Void:
    """Takes an earlier outcome back."""
    return Void(**shared(device, seq, epoch), voids=voids, reasons=["wrong_patient"])


def status(device: str = "dev-a", **changes: Any) -> Status:
    """How a device says it is."""
    fields: dict[str, Any] = {"device": device, "facility": "District clinic 7", "state": "online", "software": "0.1.0"}
    return Status(**(fields | {"model": MODEL, "model_name": "chest-3 1.0", "waiting": 0} | changes))


def hello(device: str = "dev-a", epoch: str = EPOCH, lowest: int = 1, last: int = 0, nonce: str = "ab" * 8) -> Hello:
    """What a device asks when it connects."""
    return Hello(device=device, epoch=epoch, lowest_unreceipted=lowest, last_seq=last, nonce=nonce)


def on_wire(message: AnyMessage, channel: Channel = Channel.RESULT) -> tuple[str, bytes]:
    """Topic and payload of a message."""
    return topics.topic(message.device, channel), codec.encode(message)
