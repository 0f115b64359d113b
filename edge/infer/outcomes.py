"""Building outcomes: what the contract asks for, from what the device knows, with nothing that names a patient."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import edge
from edge.clock import read_clock
from edge.config import Device
from edge.contract.bundle import Manifest
from edge.contract.codec import encode, recorded_outcome
from edge.contract.messages import MAP_SIDE, Failure, HeatMap, Refusal, Result, Void
from edge.infer.local import Heat
from edge.infer.specimen import is_specimen
from edge.network.decide import Decision
from edge.pixels.headers import NO_HEADERS, Headers, age_band
from edge.privacy.identifiers import patient_of
from edge.privacy.pseudonym import SiteKey


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

    def earlier_keys(self, picture: Picture) -> tuple[str, ...]:
        """Return the source keys that the same intake had under earlier keys of the site."""
        return tuple(key.keyed("source", picture.source) for key in self._key.earlier)

    def marks(self, picture: Picture) -> Iterator[tuple[str, str | None]]:
        """Yield (source key, pixel hash) under each key of the site, the active one first."""
        for key in self._key.all:
            yield key.keyed("source", picture.source), picture.pixel_digest and key.keyed("pixels", picture.pixel_digest)

    def differs(self, payload: bytes, headers: Headers) -> bool:
        """See the function of this name."""
        return differs(self._key, payload, headers)

    def pixel_hash(self, picture: Picture) -> str | None:
        """Return the pixel hash as it goes on the wire: equal for equal pictures of one site."""
        return None if picture.pixel_digest is None else self._key.keyed("pixels", picture.pixel_digest)

    def result(
        self,
        picture: Picture,
        decision: Decision,
        heat: Heat | None,
        quality: list[str],
        timings_ms: dict[str, float],
        *,
        shown: bool,
    ) -> Callable[[int], bytes]:
        """An answer of the network. shown: false while the clinic is not to see it."""
        return lambda seq: encode(
            Result(
                **self._common(picture, seq),
                pixel_hash=self.pixel_hash(picture) or "",
                probabilities=decision.probabilities,
                label=decision.label,
                abstained=decision.abstained,
                threshold=decision.threshold,
                heat=decision.heat,
                heat_map=_heat_map(heat),
                typicality=decision.typicality,
                shown=shown,
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

    def void(self, picture: Picture, voids: int, reason: str, *, test: bool = False) -> Callable[[int], bytes]:
        """An earlier outcome of this epoch is taken back. test: whether that was of a test film."""
        own = {"patient_missing": None, "test": test}
        return lambda seq: encode(Void(**self._common(picture, seq) | own, voids=voids, reasons=[reason]))

    def is_test(self, picture: Picture) -> bool:
        """Return whether an intake is a test film that a device of this site has made."""
        return is_specimen(self._key, picture.headers.sop_instance_uid)

    def _common(self, picture: Picture, seq: int) -> dict[str, Any]:
        now = read_clock()
        headers = picture.headers
        patient, missing = patient_of(headers)
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
            "patient": self._keyed("patient", patient),
            "patient_missing": missing,
            "exam_date": headers.exam_date,
            "age_band": age_band(headers.age_years),
            "sex": headers.sex,
            "view": headers.view,
            "test": self.is_test(picture),
        }

    def _keyed(self, purpose: str, value: str | None) -> str | None:
        return None if value is None else self._key.keyed(purpose, value)


def differs(key: SiteKey, payload: bytes, headers: Headers) -> bool:
    """Return whether a recorded outcome says something else of patient, study, age or view than these headers."""
    told = recorded_outcome(payload)
    if told is None:
        return False
    its_key = next((one for one in key.all if one.key_id == told.key_id), None)
    if its_key is None:
        return False
    patient, _ = patient_of(headers)
    # Software before that which normalises numbers made pseudonyms of them as they came.
    patients = {value and its_key.keyed("patient", value) for value in (patient, headers.patient_id)}
    study = headers.study_instance_uid and its_key.keyed("study", headers.study_instance_uid)
    now = (study, age_band(headers.age_years), headers.view)
    return told.patient not in patients or (told.study, told.age_band, told.view) != now


def _heat_map(heat: Heat | None) -> HeatMap | None:
    """Return what leaves the device of the heat: all of it, unless its grid is finer than may be sent."""
    if heat is None or max(heat.rows, heat.columns) > MAP_SIDE:
        return None
    return HeatMap(heat.rows, heat.columns, heat.values)
