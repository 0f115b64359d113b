"""The simulated clinic, short in every run of the tests and long in `make soak`: nothing is lost, nothing counts twice."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.soak.processes import KINDS, tied
from tests.support.centre import ROOT


def simulate(home: Path, report: str, limit_s: float, *options: str) -> dict[str, Any]:
    """Run it in a process of its own, since it needs a place to mount its disk; return what it has written."""
    out = ROOT / "build" / report
    out.unlink(missing_ok=True)
    command = [sys.executable, "-m", "tests.soak", "--home", str(home / "clinic"), "--out", str(out), *options]
    done = subprocess.run(tied(*command), cwd=ROOT, timeout=limit_s, check=False)
    assert done.returncode == 0, "what is wrong was printed above"
    return dict(json.loads(out.read_text()))


def check(report: dict[str, Any], studies: int, kills: int, least: int) -> None:
    assert (report["lost"], report["duplicates"], report["faults"]) == (0, 0, 0)
    assert report["studies"] == studies
    assert report["kills"] >= kills
    assert min(report["kills_of_each"].get(kind, 0) for kind in KINDS) >= least
    assert set(report["outcomes"]) == {"result", "refusal", "failure", "void"}
    assert set(report["told_by"]) == {"machine", "folder", "page"}
    assert min(report["recorded_in"].get(year, 0) for year in ("1970", "2050")) > 0
    assert report["senders_met"]["refused by C-STORE: Refused: OutOfResources"] > 0
    assert report["left_in_folder"] > 0
    assert report["link_windows"] > 0


@pytest.mark.timeout(300)
def test_nothing_is_lost_in_a_short_and_bad_time(tmp_path: Path) -> None:
    report = simulate(tmp_path, "soak-short.json", 280, "--seed", "20261121")
    check(report, studies=150, kills=40, least=2)
    assert report["broker_wipes"] >= 2
    assert report["disk_fulls"] == 1


@pytest.mark.soak
@pytest.mark.timeout(5600)
def test_nothing_is_lost_in_weeks(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """All of it takes at most 90 minutes, and says how far it is."""
    size = ["--studies", "20000", "--kills", "2000", "--minutes", "42"]
    with capfd.disabled():
        report = simulate(tmp_path, "soak.json", 5400, *size, "--seed", "20261121")
    check(report, studies=20_000, kills=2000, least=100)
    assert report["broker_wipes"] >= 20
    assert report["disk_fulls"] == 2
    assert report["link_up_s"] / (report["link_up_s"] + report["link_down_s"]) < 1 / 20
