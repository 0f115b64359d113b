"""The whole device in the memory of a Raspberry Pi Zero 2 W: the largest films of its profile are read and delivered."""

from pathlib import Path

import pytest

from edge.config import load_config
from tests.benchmarks.footprint.films import write_films
from tests.benchmarks.footprint.memory import SYSTEM_MB, measure

PROFILE = Path(__file__).resolve().parents[2] / "firmware_configs/profiles/raspberry-pi-zero-2w.toml"


def test_films_of_16_megapixels_are_read_and_delivered_within_272_mib(tmp_path):
    profile = load_config(PROFILE)
    films = write_films(tmp_path / "films", profile.decode.max_megapixels, ["DICOM", "DICOM, RLE", "DICOM, JPEG 2000"])
    seen = measure(PROFILE, tmp_path / "home", films)
    if not seen.limited:
        pytest.skip("this machine lets nobody make control groups")
    assert seen.limit == profile.board.memory_mb - SYSTEM_MB == 272
    too_large = {"DICOM, JPEG 2000": "decoder_memory"}
    assert seen.films == dict.fromkeys(films, "result") | too_large
    assert seen.delivered == len(films) == 7
    assert seen.shown == 6
    assert (seen.killed, seen.ended) == (0, [])
    assert seen.peaks["dicom"] < 40, "the listener has loaded what reads pixels"
    assert 100 < seen.at_rest < seen.peak < seen.limit
