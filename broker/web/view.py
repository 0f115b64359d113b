"""From stored rows to the words and figures that the page shows. Pure; every text that a device chose stays plain text."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Literal

import msgspec

from broker.reader import StoredDevice, StoredOdd, StoredOutcome
from edge.contract.messages import Failure, HeatMap, Refusal, Result, Status, Void
from edge.contract.reasons import advice

Tone = Literal["answer", "finding", "unsure", "problem", "void"]

QUARANTINE_REASONS: dict[str, str] = {
    "not_json": "The message is not JSON.",
    "unknown_schema": "The message has a version that this centre does not read; update the centre.",
    "invalid": "The message breaks the rules of its version; the device's software is at fault.",
    "too_large": "The message is larger than the contract allows.",
    "bad_topic": "The message came on a topic that is not for it.",
    "identity_mismatch": "The device named in the message is not the one that sent it.",
    "conflict": "The device sent two different outcomes under one number; the first one counts.",
}

_SILENT = {
    "new": "being checked: answers are not shown at the clinic yet",
    "model": "another network: answers are not shown until it was checked",
    "drift": "the X-rays have changed: answers are no longer shown",
    "by_hand": "answers are not shown: the clinic wanted it so",
}
"""Why a device is silent."""


_HOT_C = 80.0
"""For a device that does not say from when on its board is too hot."""
_ZONES = ("image_left_upper", "image_right_upper", "image_left_lower", "image_right_lower")


@dataclass(frozen=True, slots=True)
class Bar:
    """One class and its probability; `width` is 0 to 100."""

    name: str
    width: float
    percent: str
    chosen: bool


@dataclass(frozen=True, slots=True)
class Zone:
    """One quarter of the image. `x` and `y` are 0 or 1, `share` is 0 to 1."""

    name: str
    x: int
    y: int
    share: float
    percent: str


@dataclass(frozen=True, slots=True)
class Map:
    """The heat alone. `cells` are (x, y, strength), strength 0 to 1; cold ones are left out."""

    rows: int
    columns: int
    cells: list[tuple[int, int, float]]


@dataclass(frozen=True, slots=True)
class OutcomeView:
    """One outcome as people read it."""

    id: int
    device: str
    epoch: str
    seq: int
    arrived: str
    exam_date: str
    facility: str
    tone: Tone
    headline: str
    notes: list[str]
    bars: list[Bar]
    zones: list[Zone]
    zone_words: str
    map: Map | None
    facts: list[tuple[str, str]]
    payload: str
    voided_by: int | None


@dataclass(frozen=True, slots=True)
class DeviceView:
    """One device as people read it; `state` is `online`, `offline` or `unknown`."""

    name: str
    state: str
    seen: str
    facility: str
    model: str
    waiting: str
    missing: int
    clock: str
    alarms: list[str]


@dataclass(frozen=True, slots=True)
class OddView:
    """One quarantined message as people read it."""

    reason: str
    sentence: str
    detail: str
    source: str
    seq: str
    times: int
    arrived: str


def moment(milliseconds: int | None) -> str:
    """Return milliseconds since 1970 as `2026-01-31 23:59:59`, UTC; `never` for none."""
    if not milliseconds:
        return "never"
    return datetime.fromtimestamp(milliseconds / 1000, timezone.utc).strftime("%Y-%m-%d %H:%M:%S")


def outcome_view(row: StoredOutcome) -> OutcomeView:
    """Return what the page shows of an outcome."""
    outcome = row.outcome
    tone, headline, notes = _words(row)
    result = outcome if isinstance(outcome, Result) else None
    zones = [_zone(name, result.heat[name]) for name in _ZONES if name in result.heat] if result else []
    strongest = sorted(zones, key=lambda zone: -zone.share)
    return OutcomeView(
        id=row.id,
        device=row.device,
        epoch=row.epoch,
        seq=row.seq,
        arrived=moment(row.received_ms),
        exam_date=(outcome.exam_date if outcome else None) or "",
        facility=outcome.facility if outcome else "",
        tone=tone,
        headline=headline,
        notes=notes,
        bars=_bars(result) if result else [],
        zones=zones,
        zone_words=", ".join(f"{zone.name} {zone.percent}" for zone in strongest if zone.share >= 0.005),
        map=_map(result.heat_map) if result and result.heat_map else None,
        facts=_facts(row),
        payload=row.payload.decode("utf-8", "replace"),
        voided_by=row.voided_by,
    )


def device_view(row: StoredDevice) -> DeviceView:
    """Return what the page shows of a device."""
    status = row.status
    model = (status.model_name or (status.model or "")[:12]) if status else ""
    waiting = "" if status is None or status.waiting is None else str(status.waiting)
    clock = "" if status is None or status.clock_synchronised is not False else "clock not synchronised"
    seen = moment(row.seen_ms or row.status_ms)
    return DeviceView(
        row.device,
        status.state if status else "unknown",
        seen,
        status.facility if status else "",
        model,
        waiting,
        row.missing,
        clock,
        _alarms(status) if status else [],
    )


def _alarms(status: Status) -> list[str]:
    alarms = {"alarm": ["storage nearly full"], "full": ["storage full: it takes no more X-rays"]}.get(status.room or "", [])
    if status.answers == "silent":
        alarms.append(_SILENT.get(status.silent_because or "", "answers are not shown at the clinic"))
    if status.damaged_outboxes:
        alarms.append("an outbox was damaged and rebuilt")
    if "under_voltage" in status.throttled:
        alarms.append("its power supply is too weak")
    if "too_hot" in status.throttled or (status.temperature_c or 0.0) >= (status.hot_c or _HOT_C):
        alarms.append(f"hot: {status.temperature_c:.0f} °C" if status.temperature_c else "too hot")
    total = status.memory_total_bytes
    if total and status.memory_available_bytes is not None and status.memory_available_bytes < total / 10:
        alarms.append("little memory left")
    return alarms


def odd_view(row: StoredOdd) -> OddView:
    """Return what the page shows of a quarantined message."""
    sentence = QUARANTINE_REASONS.get(row.reason, row.reason)
    seq = "" if row.seq is None else str(row.seq)
    return OddView(row.reason, sentence, row.detail, row.device or row.topic, seq, row.times, moment(row.received_ms))


def _words(row: StoredOutcome) -> tuple[Tone, str, list[str]]:
    tone, headline, notes = _answer(row)
    if row.outcome is not None and row.outcome.test:
        return "void", f"Test film: {headline}", ["Made by the device itself, of no patient; counted nowhere.", *notes]
    return tone, headline, notes


def _answer(row: StoredOutcome) -> tuple[Tone, str, list[str]]:
    outcome = row.outcome
    if row.voided_by is not None:
        return "void", "Taken back", [f"No. {row.voided_by} of this device takes it back. Do not use this answer."]
    if isinstance(outcome, Result) and outcome.abstained:
        # One digit more than elsewhere: 59.8% is below 60.0%, and 60% below 60% would look like a fault.
        chance = outcome.probabilities.get(outcome.label, 0.0)
        below = f", below the site's threshold of {outcome.threshold:.1%}" if chance < outcome.threshold else ""
        likeliest = f"Likeliest: {_class(outcome.label)}, {chance:.1%}{below}."
        return "unsure", "Not sure: have a radiologist look", [likeliest, *_unshown(outcome), *map(advice, outcome.quality)]
    if isinstance(outcome, Result):
        tone: Tone = "answer" if outcome.label == "normal" else "finding"
        return tone, _class(outcome.label), [*_unshown(outcome), *map(advice, outcome.quality)]
    if isinstance(outcome, Refusal | Failure):
        headline = "Refused, no answer" if isinstance(outcome, Refusal) else "Could not be read"
        return "problem", headline, [advice(code) for code in outcome.reasons]
    if isinstance(outcome, Void):
        return "void", f"Takes back no. {outcome.voids}", [advice(code) for code in outcome.reasons]
    return (
        "problem",
        "Stored, but not readable by this version",
        ["Update the centre to the version that stored it, or a later one."],
    )


def _unshown(result: Result) -> list[str]:
    return [] if result.shown else ["The clinic was not shown this answer: its device is being checked."]


def _bars(result: Result) -> list[Bar]:
    ordered = sorted(result.probabilities.items(), key=lambda item: (-item[1], item[0]))
    return [Bar(_class(name), round(value * 100, 1), _percent(value), name == result.label) for name, value in ordered]


def _zone(name: str, share: float) -> Zone:
    side, height = name.removeprefix("image_").split("_")
    return Zone(f"{height} {side}", int(side == "right"), int(height == "lower"), round(share, 3), _percent(share))


def _map(heat: HeatMap) -> Map:
    cells = [(at % heat.columns, at // heat.columns, round(value / 255, 3)) for at, value in enumerate(heat.values) if value]
    return Map(heat.rows, heat.columns, cells)


def _facts(row: StoredOutcome) -> list[tuple[str, str]]:
    """The other fields of the message, as name and value, empty ones left out."""
    if row.outcome is None:
        return []
    shown_elsewhere = {"kind", "device", "facility", "probabilities", "heat", "heat_map", "label", "abstained", "reasons"}
    values: dict[str, object] = msgspec.to_builtins(row.outcome)
    kept = ((name, value) for name, value in values.items() if name not in shown_elsewhere and value not in (None, [], {}))
    return [(name.replace("_", " "), _plain(value)) for name, value in kept]


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {number:g}" for key, number in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def _class(name: str) -> str:
    words = name.replace("_", " ")
    return "COVID-19" if words in ("covid", "covid19", "covid-19") else words[:1].upper() + words[1:]


def _percent(value: float) -> str:
    """Never 100 % or 0 % for what is not exactly that."""
    if 0 < value < 0.01:
        return "<1%"
    if 0.99 < value < 1:
        return ">99%"
    return f"{value:.0%}"
