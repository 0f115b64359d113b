"""pip's own resolver, asked for another machine than the one it runs on.

pip takes the architecture and the Python of the files it looks for as options, but judges environment markers
(`; python_version < "3.11"`) by the interpreter that it runs in. So it is started here with the target's markers, and its report is
looked at for whether it has used them.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from firmware_configs.wheelhouse.targets import Target

_START = """
import json, sys
from pip._vendor.packaging import markers
target = json.loads(sys.argv[1])
markers.default_environment = lambda: dict(target)
from pip._internal.cli.main import main
sys.exit(main(sys.argv[2:]))
"""


class NotCollected(Exception):
    """pip did not find or fetch what is needed; the text says what it said."""


class Locked(NamedTuple):
    """One exact file."""

    name: str
    version: str
    sha256: str
    file: str


def pip(target: Target, arguments: Sequence[str]) -> None:
    """Run pip for a target.

    Raises:
        NotCollected: with pip's last words.
    """
    command = [sys.executable, "-c", _START, json.dumps(target.markers()), *arguments, "--disable-pip-version-check", "--no-input"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0:
        raise NotCollected(f"pip found not all that {target.name} needs:\n{done.stdout[-2000:]}")


def resolve(target: Target, requirements: Iterable[str], *, alone: bool = False) -> list[Locked]:
    """Return the newest files that satisfy the requirements on the target, sorted by name.

    Args: alone: without what they ask for themselves.

    Raises:
        NotCollected: if there are none, or pip has not used the target's markers.
    """
    with tempfile.TemporaryDirectory() as scratch:
        asked, report = Path(scratch, "asked.txt"), Path(scratch, "report.json")
        asked.write_text("".join(f"{line}\n" for line in requirements), "utf-8")
        options = ["install", "--quiet", "--dry-run", "--ignore-installed", f"--target={scratch}/none", f"--report={report}"]
        options += ["--no-deps"] if alone else []
        pip(target, [*options, *target.pip_options(), f"--requirement={asked}"])
        said: dict[str, Any] = json.loads(report.read_bytes())
    if said["environment"]["platform_machine"] != target.architecture:
        raise NotCollected("this version of pip does not judge markers where firmware_configs/wheelhouse/resolve.py tells it to")
    return sorted(_locked(item) for item in said["install"])


def sources(requirements: Iterable[str]) -> list[Locked]:
    """Return the source archives of exact versions.

    Raises:
        NotCollected: if one cannot be had.
    """
    here = Target(platform.machine(), f"{sys.version_info[0]}{sys.version_info[1]}")
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch, "report.json")
        options = ["install", "--quiet", "--dry-run", "--ignore-installed", "--no-deps", "--no-binary=:all:", f"--report={report}"]
        pip(here, [*options, *requirements])
        said: dict[str, Any] = json.loads(report.read_bytes())
    return sorted(_locked(item) for item in said["install"])


def _locked(item: dict[str, Any]) -> Locked:
    name = str(item["metadata"]["name"]).lower().replace("_", "-").replace(".", "-")
    download = item["download_info"]
    file = str(download["url"]).rpartition("/")[2].partition("#")[0]
    return Locked(name, str(item["metadata"]["version"]), str(download["archive_info"]["hashes"]["sha256"]), file)
