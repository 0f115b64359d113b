"""The page in docs/ is of the network in edge/models/chest."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from edge.network.bundle import SHIPPED, load_bundle
from export.bundle import REPORT_NAME

FOLDER = Path(__file__).parents[3] / "docs" / "reference" / "chest"


def test_the_full_report_is_of_the_shipped_network():
    manifest = load_bundle().manifest
    page = (FOLDER / "report.html").read_text(encoding="utf-8")
    assert f"{manifest.name} {manifest.version}" in page
    assert manifest.model_sha256 in page


def test_its_figures_are_those_of_the_cross_validation():
    cross = msgspec.json.decode((SHIPPED / REPORT_NAME).read_bytes())["cross_validation"]["darkcovid"]
    figures = msgspec.json.decode((FOLDER / "figures.json").read_bytes())["figures"]
    row = next(row for row in figures["by_dataset"] if row["dataset"] == "darkcovid")
    assert row["protocol"] == "5-fold"
    assert row["score"]["pictures"] == cross["accuracy"]["pictures"]
    assert row["score"]["accuracy"]["value"] == pytest.approx(cross["accuracy"]["value"], abs=5e-5)


def test_no_picture_of_a_patient_is_in_it():
    assert msgspec.json.decode((FOLDER / "figures.json").read_bytes())["samples"] == []
