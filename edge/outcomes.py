"""Building outcomes: what the contract asks for, from what the device knows, with nothing that names a patient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import edge
from edge.clock import read_clock
from edge.config import Device
from edge.contract.bundle import Manifest
from edge.contract.codec import encode
from edge.contract.messages import Failure, Refusal, Result, Void
from edge.decide import Decision
from edge.headers import NO_HEADERS, Headers, age_band
from edge.pseudonym import SiteKey


@dataclass(frozen=True)
class Picture:
    """What is known of one intake whatever became of it. `source` is the unkeyed source key."""

    source: str
    headers: Headers = NO_HEADERS
    pixel_digest: str | None = None


class OutcomeWriter:
    """Makes outcomes of one device in one epoch; each method returns a function from seq to bytes, for `Outbox.record`."""

    def __init__(self, device: Device, key: SiteKey, manifest: Manifest, epoch: str) -> None:
        self._device = device
        self._key = key
        self._manifest = manifest
        self._epoch = epoch

    def source_key(self, picture: Picture) -> str:
        """Return the source key as it goes on the wire."""
        return self._key.keyed("source", picture.source)

    def pixel_hash(self, picture: Picture) -> str | None:
        """Return the pixel hash as it goes on the wire: equal for equal pictures of one site."""
        return None if picture.pixel_digest is None else self._key.keyed("pixels", picture.pixel_digest)

    def result(
        self, picture: Picture, decision: Decision, quality: list[str], timings_ms: dict[str, float]
    ) -> Callable[[int], bytes]:
        """An answer of the network."""
        return lambda seq: encode(
            Result(
                **self._common(picture, seq),
                pixel_hash=self.pixel_hash(picture) or "",
                probabilities=decision.probabilities,
                label=decision.label,
                abstained=decision.abstained,
                threshold=decision.threshold,
                heat=decision.heat,
                typicality=decision.typicality,
                quality=[*quality, *decision.reasons],
                model=self._manifest.model_sha256,
                preprocessing=self._manifest.preprocessing,
                timings_ms={name: round(value, 3) for name, value in timings_ms.items()},
            )
        )

    def refusal(self, picture: Picture, reason: str) -> Callable[[int], bytes]:
        """A picture that the network may not answer."""
        return lambda seq: encode(Refusal(**self._common(picture, seq), reasons=[reason], pixel_hash=self.pixel_hash(picture)))

    def failure(self, picture: Picture, reason: str) -> Callable[[int], bytes]:
        """A file that could not be read or processed."""
        return lambda seq: encode(Failure(**self._common(picture, seq), reasons=[reason]))

    def void(self, picture: Picture, voids: int, reason: str) -> Callable[[int], bytes]:
        """An earlier outcome of this epoch is taken back."""
        return lambda seq: encode(Void(**self._common(picture, seq), voids=voids, reasons=[reason]))

    def _common(self, picture: Picture, seq: int) -> dict[str, Any]:
        now = read_clock()
        headers = picture.headers
        return {
            "device": self._device.device,
            "facility": self._device.facility,
            "epoch": self._epoch,
            "seq": seq,
            "source_key": self.source_key(picture),
            "key_id": self._key.key_id,
            "software": edge.__version__,
            "boot_id": now.boot_id,
            "monotonic_ns": now.monotonic_ns,
            "recorded_at": now.wall,
            "clock_synchronised": now.synchronised,
            "study": self._keyed("study", headers.study_instance_uid),
            "patient": self._keyed("patient", headers.patient_id),
            "exam_date": headers.exam_date,
            "age_band": age_band(headers.age_years),
            "sex": headers.sex,
            "view": headers.view,
        }

    def _keyed(self, purpose: str, value: str | None) -> str | None:
        return None if value is None else self._key.keyed(purpose, value)
