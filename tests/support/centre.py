"""The centre's own programs, run as people run them: `python -m broker.cli ...`."""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.processes import free_port, running, wait_for, wait_for_port

ROOT = Path(__file__).parents[2]
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Program:
    """A running program and where it writes what it says."""

    process: subprocess.Popen[bytes]
    log: Path

    def said(self, words: str) -> bool:
        """Whether it has said that."""
        return words in self.log.read_text(errors="replace")


@contextlib.contextmanager
def aggregator(
    folder: Path,
    mqtt: str,
    database: str,
    more: Sequence[str] = (),
    *,
    connected: bool = True,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Program]:
    """Run `cxr-broker aggregate`, and wait until it is connected."""
    log = folder / f"aggregator-{next(_numbers)}.log"
    arguments = [sys.executable, "-m", "broker.cli", "aggregate", "--mqtt", mqtt, "--db", database, *more]
    with running(arguments, log, cwd=ROOT, env={**os.environ, **(environment or {})}) as process:
        program = Program(process, log)
        if connected:

            def ready() -> bool:
                assert process.poll() is None, log.read_text()
                return program.said("Connected to")

            wait_for(ready, f"the aggregator connects; its log is {log}")
        yield program


@contextlib.contextmanager
def dashboard(folder: Path, database: str) -> Iterator[str]:
    """Run `cxr-broker serve` and return its address."""
    port, log = free_port(), folder / f"dashboard-{next(_numbers)}.log"
    arguments = [sys.executable, "-m", "broker.cli", "serve", "--db", database, "--port", str(port)]
    with running(arguments, log, cwd=ROOT) as process:
        wait_for_port(port, process, log)
        yield f"http://127.0.0.1:{port}"
