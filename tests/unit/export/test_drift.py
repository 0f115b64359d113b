"""The measurement of the watch over drift, on made-up streams and on a few drawn pictures."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from edge.network.bundle import load_bundle
from edge.network.manifest import SHIPPED
from export.cli import main
from export.dataset import read_dataset
from export.drift import Kind, delays, first_alarm, gamma, quiet, seen
from export.phantom import phantom

RNG = np.random.default_rng(5)
USUAL = Kind(tuple(np.round(RNG.random(80), 2).tolist()), 0, 80)
STRANGE = Kind((0.0, 0.01), 3, 5)


def test_a_stream_without_a_change_alarms_no_more_than_the_bound_says():
    found = quiet(USUAL, 1000, runs=40, length=300)
    assert found == {"runs": 40, "pictures": 300, "alarms": found["alarms"], "at_most_expected": 12.0}
    assert found["alarms"] <= 12


def test_a_change_is_found_at_once_a_small_share_of_it_later_and_none_is_never():
    whole = delays(USUAL, STRANGE, 1.0, 150, 5000, runs=10)
    part = delays(USUAL, STRANGE, 0.25, 150, 5000, runs=10)
    none = delays(USUAL, USUAL, 1.0, 150, 1e12, runs=3)
    assert whole["not_found"] == 0
    assert whole["median"] <= whole["within_95_percent"] < 15
    assert whole["median"] < part["median"]
    assert delays(USUAL, STRANGE, 1.0, 150, 20, runs=10)["alarmed_before"] > 0, "with a bound that is no bound"
    assert (none["not_found"], none["median"], none["within_95_percent"]) == (3, None, None)


def test_an_alarm_is_counted_from_the_change():
    late = first_alarm(USUAL, STRANGE, 1.0, 200, 400, 5000, seed=1)
    assert late is not None
    assert 0 < late < 20
    assert first_alarm(STRANGE, STRANGE, 1.0, 50, 60, 0.0, seed=1) == -49, "the first picture of all, before the change"


def test_what_is_seen_is_what_the_device_measures_of_what_it_lets_through(data):
    bundle = load_bundle()
    samples = read_dataset(data, "darkcovid")[:4]
    kind = seen(bundle, samples)
    assert len(kind.typicalities) + kind.refused == 4
    assert kind.patients == 2
    turned = seen(bundle, samples, lambda image: image.transpose(Image.Transpose.ROTATE_180))
    assert turned.refused > kind.refused, "the gate is part of it"


def test_another_exposure_keeps_black_and_white():
    image = Image.fromarray(phantom(1, width=64, height=64))
    dark = np.asarray(gamma(2.0)(image)).astype(int)
    assert (dark <= np.asarray(image)).all()
    assert dark.mean() < np.asarray(image).mean() - 10
    assert gamma(2.0)(Image.new("L", (1, 1), 255)).getpixel((0, 0)) == 255


def test_the_command_writes_the_figures_of_every_change(data, tmp_path, monkeypatch):
    monkeypatch.setattr("export.drift._QUIET_LENGTH", 200)
    monkeypatch.setattr("export.drift._PATIENCE", 50)
    out = tmp_path / "drift.json"
    done = CliRunner().invoke(main, ["drift", str(SHIPPED), "--data", str(data), "--out", str(out), "--scale", "0.001"])
    assert done.exit_code == 0, done.output
    report = msgspec.json.decode(out.read_bytes())
    assert report["once_in"] == 50_000
    assert set(report["sites"]) == {"ieee8023", "nih-chestxray8"}
    turns = report["sites"]["nih-chestxray8"]["turns_into"]
    assert set(turns) == {"ieee8023", "children", "gamma 0.5", "gamma 0.7", "gamma 1.4", "gamma 2"}
    assert [(row["share"], row["before"]) for row in turns["children"]["found"]] == [(1, 150), (1, 1000), (0.25, 150), (0.25, 1000)]
    assert str(data) not in out.read_text()


@pytest.mark.parametrize("options", [["--scale", "0"], ["--once-in", "10"]])
def test_a_wrong_option_is_refused(tmp_path, options):
    done = CliRunner().invoke(main, ["drift", str(SHIPPED), "--data", str(tmp_path), "--out", str(tmp_path / "o"), *options])
    assert done.exit_code == 2
