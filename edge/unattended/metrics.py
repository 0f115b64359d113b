"""The state of the device as text for Prometheus (text exposition format 0.0.4). Pure.

Counters of outcomes grow over restarts; that of receipts begins anew with the relay, which Prometheus expects of counters.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from edge.contract.messages import Status
from edge.unattended.tally import STEPS, Tally

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Labels = Mapping[str, str]
_NONE: Labels = {}

_GAUGES = (
    ("waiting_outcomes", "waiting", "Outcomes without the centre's receipt."),
    ("oldest_waiting_seconds", "oldest_waiting_s", "Age of the oldest outcome without a receipt."),
    ("spool_files", "spool_files", "X-rays that wait to be read."),
    ("spool_bytes", "spool_bytes", "What X-rays that wait to be read take."),
    ("results_bytes", "results_bytes", "What the outbox takes."),
    ("results_limit_bytes", "results_limit_bytes", "What the outbox may take."),
    ("disk_free_bytes", "disk_free_bytes", "Free disk."),
    ("damaged_outboxes", "damaged_outboxes", "Outboxes that were put aside as damaged."),
    ("temperature_celsius", "temperature_c", "Of the hottest sensor."),
    ("memory_available_bytes", "memory_available_bytes", "Memory that programs can still have."),
    ("memory_bytes", "memory_total_bytes", "Memory of the machine."),
    ("load1", "load_1m", "Load over the last minute."),
    ("uptime_seconds", "uptime_s", "Since the boot."),
)
"""Name, field of Status, help."""


def exposition(status: Status, tally: Tally, restarts: Mapping[str, int], receipts: int, *, connected: bool) -> str:
    """Return the page that Prometheus reads.

    Args:
        status: as it goes to the centre.
        tally: what was counted on this device.
        restarts: by process, since the boot.
        receipts: outcomes that got their receipt since the relay began.
        connected: whether the broker has accepted this device.
    """
    info = {"device": status.device, "software": status.software, "model": status.model_name or ""}
    lines = [*_family("info", "gauge", "What this device is.", [(info, 1)])]
    for name, field, text in _GAUGES:
        value = getattr(status, field)
        if value is not None:
            lines += _family(name, "gauge", text, [(_NONE, value)])
    takes = status.room != "full"
    lines += _family("takes_xrays", "gauge", "1 while there is room for more X-rays.", [(_NONE, takes)])
    clock = bool(status.clock_synchronised)
    lines += _family("clock_synchronised", "gauge", "1 while a time source steers the clock.", [(_NONE, clock)])
    lines += _family("centre_connected", "gauge", "1 while the broker has accepted this device.", [(_NONE, connected)])
    causes = _by("cause", dict.fromkeys(status.throttled, 1))
    lines += _family("throttled", "gauge", "1 for each cause that slows the machine down.", causes)
    lines += _family("outcomes_total", "counter", "Outcomes recorded of patients' films, by kind.", _by("kind", tally.outcomes))
    lines += _family(
        "unanswered_total", "counter", "Refusals and failures of patients' films, by reason.", _by("reason", tally.unanswered)
    )
    lines += _family("receipts_total", "counter", "Outcomes that got the centre's receipt.", [(_NONE, receipts)])
    lines += _family("restarts_total", "counter", "Restarts since the boot, by process.", _by("process", restarts))
    name = "work_seconds"
    lines += [f"# HELP cxr_edge_{name} Time that results took, by step.", f"# TYPE cxr_edge_{name} summary"]
    for step in STEPS:
        lines.append(_sample(f"{name}_sum", {"step": step}, tally.microseconds.get(step, 0) / 1e6))
        lines.append(_sample(f"{name}_count", {"step": step}, tally.timed))
    return "\n".join(lines) + "\n"


def _by(label: str, counts: Mapping[str, int]) -> list[tuple[Labels, float]]:
    return [({label: value}, count) for value, count in sorted(counts.items())]


def _family(name: str, kind: str, text: str, samples: list[tuple[Labels, float]]) -> Iterator[str]:
    yield f"# HELP cxr_edge_{name} {text}"
    yield f"# TYPE cxr_edge_{name} {kind}"
    for labels, value in samples:
        yield _sample(name, labels, value)


def _sample(name: str, labels: Labels, value: float) -> str:
    inside = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
    return f"cxr_edge_{name}{f'{{{inside}}}' if inside else ''} {float(value):.17g}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
