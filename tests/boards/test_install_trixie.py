"""The offline package for Python 3.13 on Debian 13, as Raspberry Pi OS has been since October 2025: it reads and delivers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from firmware_configs.wheelhouse.collect import collect
from firmware_configs.wheelhouse.targets import Target
from tests.support.board_device import PROFILE, ask, bring_enrolment, require_same_reading, serving, unpack
from tests.support.board_root import Board, board, debian_root
from tests.support.clinic import small_picture
from tests.support.fleet import Fleet, make_fleet


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    made = make_fleet(tmp_path_factory.mktemp("fleet") / "centre")
    made.enroll("clinic-1", "--facility", "Clinic 1")
    return made


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Board]:
    with board(debian_root(packages=("python3",), suite="trixie"), tmp_path / "board") as made:
        yield made


def test_installed_enrolled_reading_and_delivering(bare: Board, fleet: Fleet, tmp_path: Path) -> None:
    unpack(bare, collect(Target("x86_64", "313"), tmp_path), "/root/package")
    bare.write("/root/board.toml", PROFILE)
    said = bare.must("/root/package/install.sh", *bring_enrolment(bare, fleet, "clinic-1"), "--profile", "/root/board.toml")
    assert "This board is clinic-1 of Clinic 1." in said
    assert "Python 3.13" in bare.must("/opt/cxr-edge/current/bin/python", "--version")

    require_same_reading(bare, small_picture(tmp_path / "a.png", 1))

    with bare.network(), fleet.mosquitto(), fleet.aggregator(), serving(bare, tmp_path / "device.log"):
        said = ask(bare, "check", "--to-the-centre", timeout_s=150)
    assert "receipt" in said.splitlines()[-1], said


def test_the_package_of_another_python_is_refused_in_one_sentence(bare: Board, tmp_path: Path) -> None:
    unpack(bare, collect(Target("x86_64", "311"), tmp_path), "/root/package")
    done = bare.run("/root/package/install.sh")
    assert done.returncode == 2, done.stdout
    assert "3.13" in done.stdout.splitlines()[-1]
    assert "3.11" in done.stdout.splitlines()[-1]
    assert bare.run("test", "-e", "/opt/cxr-edge").returncode == 1
