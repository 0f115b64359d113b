"""What the installed software itself is asked: to enrol, whether it would work, what is missing, what waits in its outbox."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from .environment import clean
from .errors import Refused
from .places import USER, Places

_PATIENCE_S = 180.0
_TRIES = 3
_MARK = "PROBLEM"


class Device:
    """The software of one version, run as the user that the device runs as."""

    def __init__(self, version: Path, places: Places) -> None:
        self.version = version
        self._places = places

    def enrol(self, file: Path, profile: Path, code: Path | None) -> None:
        """Make this board the device of an enrolment file; the code is typed, or read from a file. As root.

        Raises:
            Refused: with what `cxr-edge enrol` has said.
        """
        command = [str(self.version / "bin/cxr-edge"), "enrol", str(file), "--config", str(self._places.device_toml)]
        command += ["--profile", str(profile)]
        # Its first line is the code; where the file has no site key, the lines of the paper may follow.
        typed = code.read_text("utf-8", "replace") if code is not None else None
        # At a terminal a slip of the finger is no reason to unpack everything anew.
        tries = _TRIES if typed is None and sys.stdin.isatty() else 1
        for left in reversed(range(tries)):
            done = subprocess.run(
                command,
                env=clean(),
                umask=0o077,
                input=typed,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                check=False,
            )
            if done.returncode == 0:
                return
            said = _last(done.stderr, "cxr-edge: ") or f"The enrolment ended with {done.returncode}."
            if not left:
                raise Refused(said)
            sys.stdout.write(f"         {said}\n")

    def trouble(self) -> str:
        """Return what of this version itself would stop the device, or an empty text: by that it is taken or not."""
        return "; ".join(self._problems("check", "--software"))

    def missing(self) -> list[str]:
        """Return what else would stop the device, for people: what surrounds it, which another version would not put right."""
        return self._problems("check")

    def _problems(self, *command: str) -> list[str]:
        done = self._ask(*command)
        if done is None:
            return ["`cxr-edge check` did not come to an end."]
        if done.returncode == 0:
            return []
        return problems(done.stdout) or [f"`cxr-edge check` ended with {done.returncode}"]

    def reads_outbox(self) -> bool:
        """Whether this version can read the outbox as it is now, which a newer version may have written."""
        if not (self._places.state / "outbox.db").exists():
            return True
        done = self._ask("outbox", "--limit", "1")
        return done is not None and done.returncode == 0

    def unsent(self) -> int:
        """Return how many outcomes have no receipt, and how many X-rays were not read yet; together.

        Raises:
            Refused: if it cannot be told.
        """
        if not self._places.device_toml.exists() or not (self._places.state / "outbox.db").exists():
            waiting = 0
        else:
            done = self._ask("outbox", "--json", "--limit", "1000000")
            if done is None or done.returncode != 0:
                said = "" if done is None else _last(done.stdout, "cxr-edge: ")
                raise Refused(
                    f"It cannot be told what waits in the outbox ({said or 'no answer'}): --even-unsent removes it all the same."
                )
            lines: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
            waiting = sum(not line["receipted"] for line in lines)
        return waiting + sum(
            path.is_file() for folder in (self._places.state / "spool", self._places.inbox) for path in folder.glob("**/*")
        )

    def _ask(self, *command: str) -> subprocess.CompletedProcess[str] | None:
        try:
            return subprocess.run(
                [str(self.version / "bin/cxr-edge"), *command, "--config", str(self._places.device_toml)],
                env=clean(),
                user=USER,
                group=USER,
                extra_groups=[],
                umask=0o077,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                check=False,
                timeout=_PATIENCE_S,
            )
        except subprocess.TimeoutExpired:
            return None


def problems(said: str) -> list[str]:
    """Return what `cxr-edge check` has said would stop the device, a line each; its last line if it has named nothing."""
    lines = said.splitlines()
    named = [line.removeprefix(_MARK) for line in lines if line.startswith(_MARK)] or lines[-1:]
    return [" ".join(line.split()) for line in named]


def _last(text: str, prefix: str) -> str:
    lines = [line for line in text.strip().splitlines() if line]
    return lines[-1].removeprefix(prefix) if lines else ""
