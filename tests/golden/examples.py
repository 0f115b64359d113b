"""One example of every message, with every field set; the golden bytes are made from these."""

from __future__ import annotations

from typing import Any

from edge.contract.messages import (
    AnyMessage,
    ClosedEpoch,
    Command,
    Failure,
    HeatMap,
    Hello,
    Quarantined,
    Receipt,
    Refusal,
    Reply,
    Result,
    Status,
    Void,
)


def pem(what: str) -> str:
    """Return what has the form of a certificate or a request, and is none."""
    return f"-----BEGIN {what}-----\nAAAA\n-----END {what}-----\n"


EPOCH = "0123456789abcdef0123456789abcdef"
COMMON: dict[str, Any] = {
    "device": "clinic-7",
    "facility": "Health centre no. 7",
    "epoch": EPOCH,
    "seq": 42,
    "source_key": "a" * 64,
    "key_id": "0badcafe",
    "software": "0.1.0",
    "boot_id": "6a5c0d2e-3f51-4f0e-9d5e-0c0f3a1b2c3d",
    "monotonic_ns": 123456789012,
    "recorded_at": "2026-01-31T12:00:00.5Z",
    "clock_synchronised": False,
    "study": "b" * 64,
    "patient": "c" * 64,
    "patient_missing": "placeholder",
    "exam_date": "2026-01-31",
    "age_band": "40-49",
    "sex": "F",
    "view": "PA",
    "pcr": "pending",
    "test": True,
}
EXAMPLES: dict[str, AnyMessage] = {
    "result": Result(
        **COMMON,
        pixel_hash="d" * 64,
        probabilities={"normal": 0.125, "pneumonia": 0.625, "covid19": 0.25},
        label="pneumonia",
        abstained=False,
        threshold=0.6,
        model="e" * 64,
        preprocessing=1,
        typicality=0.75,
        quality=["uid_reused"],
        heat={"image_left_upper": 0.5, "image_right_upper": 0.0, "image_left_lower": 0.25, "image_right_lower": 0.25}
        | {"image_central": 0.4, "image_peripheral": 0.6},
        heat_map=HeatMap(2, 3, bytes((0, 51, 102, 153, 204, 255))),
        timings_ms={"decode": 20.5, "total": 31.25},
    ),
    "refusal": Refusal(**COMMON, reasons=["colour"], pixel_hash="d" * 64),
    "failure": Failure(**COMMON, reasons=["truncated"]),
    "void": Void(**COMMON, voids=41, reasons=["wrong_patient"]),
    "status": Status(
        device="clinic-7",
        facility="Health centre no. 7",
        state="online",
        software="0.1.0",
        model="e" * 64,
        model_name="chest 1",
        epoch=EPOCH,
        last_seq=42,
        waiting=3,
        disk_free_bytes=1_000_000_000,
        room="alarm",
        results_bytes=200_000_000,
        results_limit_bytes=250_609_664,
        spool_files=2,
        spool_bytes=12_000_000,
        damaged_outboxes=1,
        answers="silent",
        silent_because="drift",
        oldest_waiting_s=7200.5,
        restarts=1,
        temperature_c=61.5,
        hot_c=95.0,
        throttled=["under_voltage"],
        memory_available_bytes=1_500_000_000,
        memory_total_bytes=4_000_000_000,
        load_1m=0.25,
        boot_id=COMMON["boot_id"],
        uptime_s=3600.5,
        clock_synchronised=True,
        sent_at="2026-01-31T12:00:00Z",
    ),
    "hello": Hello(
        device="clinic-7", epoch=EPOCH, lowest_unreceipted=40, last_seq=42, nonce="f" * 32, closed=[ClosedEpoch("9" * 32, 17)]
    ),
    "receipt": Receipt(
        device="clinic-7",
        epoch=EPOCH,
        through=39,
        plus=[(41, 42)],
        within=(1, 42),
        quarantined=[Quarantined(40, "invalid")],
        answers="f" * 32,
    ),
    "command": Command(device="clinic-7", id="1" * 32, verb="certificate", certificate=pem("CERTIFICATE")),
    "reply": Reply(device="clinic-7", id="1" * 32, ok=True, detail="here", request=pem("CERTIFICATE REQUEST")),
}
