"""Every message that crosses the wire, as frozen structs. These structs are the truth; `docs/reference/` is written from them.

Reading accepts unknown fields, so that an old centre understands a newer device of the same schema version.
No message has room for a name, a number, a date of birth or free text about a patient.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from edge.contract.types import (
    AgeBand,
    ClassName,
    Code,
    Day,
    DeviceId,
    Digest,
    Epoch,
    FacilityId,
    Instant,
    Keyed,
    Nonce,
    Pem,
    Probability,
    Seq,
    Short,
    Through,
)

SCHEMA = 1
"""Version of the contract. A reader quarantines any other."""

MAX_BYTES = 8192
"""Upper bound of one encoded message."""


MAP_SIDE = 16
"""Rows and columns of a heat map at most: far too few to show a rib, let alone whose it is."""


class HeatMap(msgspec.Struct, frozen=True):
    """Where the network saw what speaks for the likeliest class, on the network's own grid; no pixel of the picture is in it."""

    rows: Annotated[int, Meta(ge=1, le=MAP_SIDE)]
    columns: Annotated[int, Meta(ge=1, le=MAP_SIDE)]
    values: Annotated[bytes, Meta(min_length=1, max_length=MAP_SIDE**2, description="row by row, 255 where most speaks for it")]

    def __post_init__(self) -> None:
        """Raise ValueError unless there is one value for each cell."""
        if len(self.values) != self.rows * self.columns:
            raise ValueError(f"{len(self.values)} values for {self.rows} x {self.columns} cells")


class Outcome(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind"):
    """What every intake ends in, exactly once: fields that all four kinds share.

    Order comes from (epoch, seq) alone; `recorded_at` is the device's own clock and wrong unless `clock_synchronised`.
    """

    schema: int = SCHEMA
    device: DeviceId
    facility: FacilityId
    epoch: Epoch
    seq: Seq
    source_key: Keyed
    key_id: Annotated[str, Meta(pattern=r"^[0-9a-f]{8}$", description="which site key made the pseudonyms")]
    software: Short
    boot_id: Annotated[str, Meta(pattern=r"^[0-9a-f-]{32,36}$")]
    monotonic_ns: Annotated[int, Meta(ge=0, description="nanoseconds since that boot")]
    recorded_at: Instant
    clock_synchronised: bool
    study: Keyed | None = None
    patient: Keyed | None = None
    patient_missing: (
        Annotated[Literal["not_dicom", "empty", "placeholder"], Meta(description="why there is no pseudonym of the patient")] | None
    ) = None
    exam_date: Day | None = None
    age_band: AgeBand | None = None
    sex: Literal["F", "M", "O"] | None = None
    view: Literal["AP", "PA", "LATERAL", "OTHER"] | None = None
    pcr: Literal["positive", "negative", "pending"] | None = None
    test: Annotated[bool, Meta(description="of a test film that the device has made itself: counts nowhere")] = False


class Result(Outcome, frozen=True, kw_only=True, tag="result"):
    """The network gave an answer, which may be "not sure" (`abstained`)."""

    pixel_hash: Keyed
    probabilities: Annotated[dict[ClassName, Probability], Meta(min_length=2, max_length=32)]
    label: ClassName
    abstained: bool
    threshold: Probability
    model: Digest
    preprocessing: Annotated[int, Meta(ge=1)]
    typicality: Probability | None = None
    shown: Annotated[bool, Meta(description="false: silent commissioning, the clinic was not shown this answer")] = True
    quality: list[Code] = []
    heat: dict[Annotated[str, Meta(pattern=r"^image_((left|right)_(upper|lower)|central|peripheral)$")], Probability] = {}
    heat_map: HeatMap | None = None
    timings_ms: dict[Code, Annotated[float, Meta(ge=0.0)]] = {}


class Refusal(Outcome, frozen=True, kw_only=True, tag="refusal"):
    """The picture was read and this model may not answer it."""

    reasons: Annotated[list[Code], Meta(min_length=1, max_length=16)]
    pixel_hash: Keyed | None = None


class Failure(Outcome, frozen=True, kw_only=True, tag="failure"):
    """The file could not be read, or the device could not process it."""

    reasons: Annotated[list[Code], Meta(min_length=1, max_length=16)]


class Void(Outcome, frozen=True, kw_only=True, tag="void"):
    """An earlier outcome of this epoch is taken back, for instance because it was the wrong patient."""

    voids: Seq
    reasons: Annotated[list[Code], Meta(min_length=1, max_length=16)]


AnyOutcome = Result | Refusal | Failure | Void


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """How a device is, retained by the broker; `offline` is left there by the MQTT last will."""

    schema: int = SCHEMA
    device: DeviceId
    facility: FacilityId
    state: Literal["online", "offline"]
    software: Short
    model: Digest | None = None
    model_name: Short | None = None
    epoch: Epoch | None = None
    last_seq: Through | None = None
    waiting: Annotated[int, Meta(ge=0, description="outcomes without a receipt")] | None = None
    disk_free_bytes: Annotated[int, Meta(ge=0)] | None = None
    room: Annotated[Literal["ok", "alarm", "full"], Meta(description="full: no further X-ray is taken in")] | None = None
    results_bytes: Annotated[int, Meta(ge=0, description="what outcomes take on the device")] | None = None
    results_limit_bytes: Annotated[int, Meta(ge=0)] | None = None
    spool_files: Annotated[int, Meta(ge=0, description="X-rays that wait to be read")] | None = None
    spool_bytes: Annotated[int, Meta(ge=0)] | None = None
    damaged_outboxes: Annotated[int, Meta(ge=0, description="outboxes that were put aside as damaged")] | None = None
    answers: Annotated[Literal["shown", "silent"], Meta(description="silent: recorded, the clinic is not shown them")] | None = None
    silent_because: Annotated[Code, Meta(description="new, model, drift, by_hand, damaged")] | None = None
    oldest_waiting_s: Annotated[float, Meta(ge=0.0, description="age of the oldest outcome without a receipt")] | None = None
    restarts: Annotated[int, Meta(ge=0, description="of the device's processes since the boot, together")] | None = None
    temperature_c: Annotated[float, Meta(description="of the hottest sensor")] | None = None
    hot_c: Annotated[float, Meta(description="from there on this board is too hot; 80 where it does not say")] | None = None
    throttled: Annotated[list[Code], Meta(max_length=8, description="why the machine is slower than it could be")] = []
    memory_available_bytes: Annotated[int, Meta(ge=0)] | None = None
    memory_total_bytes: Annotated[int, Meta(ge=0)] | None = None
    load_1m: Annotated[float, Meta(ge=0.0)] | None = None
    boot_id: Short | None = None
    uptime_s: Annotated[float, Meta(ge=0.0)] | None = None
    clock_synchronised: bool | None = None
    sent_at: Instant | None = None


class ClosedEpoch(msgspec.Struct, frozen=True):
    """An outbox that was given up, and the last seq that it held."""

    epoch: Epoch
    last_seq: Through


class Hello(msgspec.Struct, frozen=True, kw_only=True):
    """Sent at every connection: what the device still waits for. The answer is a receipt that carries the nonce."""

    schema: int = SCHEMA
    device: DeviceId
    epoch: Epoch
    lowest_unreceipted: Seq
    last_seq: Through
    nonce: Nonce
    closed: Annotated[list[ClosedEpoch], Meta(max_length=16)] = []


class Quarantined(msgspec.Struct, frozen=True):
    """An outcome that the centre keeps apart; it counts as delivered."""

    seq: Seq
    reason: Code


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """The centre has committed every seq up to `through`, and those in `plus` (inclusive pairs) beyond it.

    More may be committed than a receipt has room for: then `within` (inclusive) says where nothing is left out.
    """

    schema: int = SCHEMA
    device: DeviceId
    epoch: Epoch
    through: Through
    plus: Annotated[list[tuple[Seq, Seq]], Meta(max_length=128)] = []
    within: tuple[Seq, Seq] | None = None
    quarantined: Annotated[list[Quarantined], Meta(max_length=64)] = []
    answers: Nonce | None = None

    def __post_init__(self) -> None:
        """Raise ValueError, which a decoder makes a ValidationError, if a range ends before it begins."""
        if any(last < first for first, last in self.plus):
            raise ValueError("a range of `plus` ends before it begins")


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """A request of the centre to one device: `ping`, `renew` (make a new key) or `certificate` (here is the one for it)."""

    schema: int = SCHEMA
    device: DeviceId
    id: Nonce
    verb: Code
    certificate: Annotated[Pem, Meta(description="X.509, for the key of the request that answered `renew`")] | None = None


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """The device's answer to one command."""

    schema: int = SCHEMA
    device: DeviceId
    id: Nonce
    ok: bool
    detail: Short = ""
    request: Annotated[Pem, Meta(description="PKCS 10: asks for a certificate for a new key of the device")] | None = None


AnyMessage = AnyOutcome | Status | Hello | Receipt | Command | Reply
