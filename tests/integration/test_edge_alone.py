"""A device has the `edge` extra and nothing else: no export, no broker, no TensorFlow."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.clinic import small_picture

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.timeout(600)
def test_the_edge_extra_alone_installs_imports_and_runs(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    shutil.copytree(ROOT / "edge", source / "edge", ignore=shutil.ignore_patterns("__pycache__"))
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    done = subprocess.run(
        [venv / "bin/pip", "install", "--quiet", "--disable-pip-version-check", f"{source}[edge]"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr

    def run(*command: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=tmp_path, check=False, timeout=120)

    for module in ("export", "broker", "tensorflow", "tf_keras", "sqlalchemy", "psycopg"):
        assert run(venv / "bin/python", "-c", f"import {module}").returncode != 0, f"{module} is there"
    everything = (
        "import pkgutil, importlib, edge\n"
        "for module in pkgutil.walk_packages(edge.__path__, 'edge.'): importlib.import_module(module.name)\n"
    )
    assert run(venv / "bin/python", "-c", everything).returncode == 0
    picture = small_picture(tmp_path / "a.png", 1, side=300)
    read = run(venv / "bin/cxr-edge", "classify", "--json", picture)
    assert read.returncode == 0, read.stderr
    assert json.loads(read.stdout)["status"] == "ok"
    made = run(venv / "bin/cxr-edge", "init", tmp_path / "device", "--device", "clinic-1", "--facility", "Clinic")
    assert made.returncode == 0, made.stderr
    checked = run(venv / "bin/cxr-edge", "check", "--config", tmp_path / "device/device.toml")
    assert "golden inputs give the scores expected of" in checked.stdout
