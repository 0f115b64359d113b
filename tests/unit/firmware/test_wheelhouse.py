"""The locks hold what setup.cfg asks for, and nothing else is ever fetched."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from firmware_configs.wheelhouse.collect import _glibc, _require_no_secrets
from firmware_configs.wheelhouse.locks import device_requirements
from firmware_configs.wheelhouse.own_wheel import build_own_wheel
from firmware_configs.wheelhouse.resolve import NotCollected
from firmware_configs.wheelhouse.targets import LOCKS, PIP_LOCK, Target, published_targets

_LINE = re.compile(r"([a-z0-9-]+)==([0-9][^ ]*) --hash=sha256:[0-9a-f]{64}")
TARGETS = list(published_targets())


def locked(path: Path) -> dict[str, str]:
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    found = [_LINE.fullmatch(line) for line in lines]
    assert all(found), f"{path}: a line without exact version and hash"
    return {match[1]: match[2] for match in found if match}


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_a_lock_satisfies_what_setup_asks_for_on_that_target(target: Target) -> None:
    versions = locked(target.lock)
    asked = [Requirement(line) for line in device_requirements()]
    assert len(asked) > 10
    for one in asked:
        if one.marker is None or one.marker.evaluate({**target.markers(), "extra": ""}):
            version = versions.get(canonicalize_name(one.name))
            assert version, f"{one.name} is missing in {target.lock.name}: run make locks"
            assert one.specifier.contains(version), f"{one.name} {version} in {target.lock.name} is not {one.specifier}: make locks"
    assert ("tomli" in versions) == (target.python == "310"), "markers are judged for the target"
    assert "tensorflow" not in versions


def test_every_lock_is_of_a_target_that_is_known() -> None:
    names = {target.lock for target in TARGETS} | {PIP_LOCK}
    assert names <= set(LOCKS.glob("*.txt"))
    assert locked(PIP_LOCK).keys() == {"pip"}


def test_the_own_wheel_holds_the_device_alone(tmp_path: Path) -> None:
    wheel = build_own_wheel(tmp_path, 1_700_000_000, "9.8.7")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        [scripts] = [archive.read(name).decode() for name in names if name.endswith("entry_points.txt")]
        [metadata] = [archive.read(name).decode() for name in names if name.endswith("/METADATA")]
    assert {name.split("/")[0] for name in names} == {"edge", "cxr_edge-9.8.7.dist-info"}
    assert "edge/models/chest/model.tflite" in names
    assert any(name.startswith("edge/page/static/") for name in names)
    assert any(name.startswith("edge/models/chest/golden/") for name in names)
    assert re.findall(r"cxr-\w+", scripts) == ["cxr-edge"]
    assert "Version: 9.8.7" in metadata
    assert "tensorflow" not in metadata


def test_the_c_library_is_the_oldest_that_all_wheels_run_with(tmp_path: Path) -> None:
    for name in (
        "a-1-py3-none-any.whl",
        "b-1-cp311-cp311-manylinux2014_aarch64.manylinux_2_17_aarch64.manylinux_2_28_aarch64.whl",
        "c-1-cp311-abi3-manylinux_2_31_armv7l.whl",
        "d-1-cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl",
    ):
        (tmp_path / name).write_bytes(b"")
    assert _glibc(tmp_path) == "2.31"


def test_a_package_is_not_made_with_a_key_or_a_pin_inside(tmp_path: Path) -> None:
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles/board.toml").write_text("device = 'clinic-1'")
    (tmp_path / "published.whl").write_bytes(b"-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49AgEGCCqGSM49")
    _require_no_secrets(tmp_path, {"published.whl"})
    (tmp_path / "profiles/page.pin").write_text("123456")
    with pytest.raises(NotCollected, match=r"profiles/page\.pin holds a PIN"):
        _require_no_secrets(tmp_path, {"published.whl"})
