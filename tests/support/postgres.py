"""A real PostgreSQL cluster in a temporary folder."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.processes import end, find_program, free_port, wait_for_port

_BINARIES = tuple(str(path) for path in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True))


@dataclass
class Postgres:
    """A cluster that can be stopped and started again on the same port with the same data."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    def url(self, database: str = "postgres") -> str:
        """The URL of one of its databases."""
        return f"postgresql://centre@127.0.0.1:{self.port}/{database}"

    def create_database(self, name: str) -> str:
        """Create an empty database and return its URL."""
        program = find_program("psql", "postgresql-client", _BINARIES)
        statement = f'CREATE DATABASE "{name}"'
        subprocess.run([program, "-X", "-q", "-d", self.url(), "-c", statement], check=True, capture_output=True, timeout=60)
        return self.url(name)

    def start(self) -> None:
        """Start it and wait until it listens."""
        program = find_program("postgres", "postgresql", _BINARIES)
        log = self.folder / "postgres.log"
        arguments = [program, "-D", str(self.folder / "data"), "-p", str(self.port), "-k", str(self.folder), "-h", "127.0.0.1"]
        with log.open("ab") as output:
            self.process = subprocess.Popen([*_as_postgres(), *arguments], stdout=output, stderr=output, cwd=self.folder)
        wait_for_port(self.port, self.process, log)

    def stop(self) -> None:
        """End it at once, without waiting for clients (SIGINT: a fast shutdown)."""
        if self.process is not None:
            end(self.process, 2)


def _as_postgres() -> list[str]:
    """PostgreSQL does not run as root; the tests may."""
    if os.geteuid() != 0:
        return []
    # No process in between: the signal must reach the server.
    return [find_program("setpriv", "util-linux"), "--reuid=postgres", "--regid=postgres", "--clear-groups"]


@contextlib.contextmanager
def temporary_postgres() -> Iterator[Postgres]:
    """Run a fresh cluster. It syncs nothing to disk, as no test cuts the power under it."""
    initdb = find_program("initdb", "postgresql", _BINARIES)
    # Not below pytest's folder: that one is closed to other users, such as postgres.
    folder = Path(tempfile.mkdtemp(prefix="cxr-postgres-"))
    try:
        if os.geteuid() == 0:
            owner = pwd.getpwnam("postgres")
            os.chown(folder, owner.pw_uid, owner.pw_gid)
        arguments = [initdb, "-D", str(folder / "data"), "-U", "centre", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
        subprocess.run([*_as_postgres(), *arguments], check=True, capture_output=True, timeout=120, cwd=folder)
        with (folder / "data" / "postgresql.conf").open("a", encoding="utf-8") as configuration:
            configuration.write("fsync = off\nmax_connections = 30\nshared_buffers = 32MB\n")
        server = Postgres(folder, free_port())
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
