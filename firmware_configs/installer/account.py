"""The system user that the device runs as, and its folders."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .durable import fsync_folder, make_folder
from .errors import Refused
from .places import USER, Places


def has_user() -> bool:
    """Whether the user is there."""
    try:
        pwd.getpwnam(USER)
    except KeyError:
        return False
    return True


def add_user(places: Places) -> None:
    """Make the system user with a group of its own."""
    _run("useradd", "--system", "--user-group", "--no-create-home", f"--home-dir={places.state}", "--shell=/usr/sbin/nologin", USER)


def remove_user() -> None:
    """Remove the user and its group."""
    if has_user():
        _run("userdel", USER)


@dataclass(frozen=True)
class Folder:
    """A folder as it has to be."""

    path: Path
    mode: int
    owner: str
    group: str

    def stands(self) -> bool:
        """Whether it is there, as it has to be."""
        if not self.path.is_dir() or not has_user():
            return False
        status = self.path.stat()
        return (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (*self._ids(), self.mode)

    def make(self) -> None:
        """Make it, or make it right."""
        make_folder(self.path)
        os.chown(self.path, *self._ids())
        os.chmod(self.path, self.mode)
        fsync_folder(self.path)

    def _ids(self) -> tuple[int, int]:
        return pwd.getpwnam(self.owner).pw_uid, grp.getgrnam(self.group).gr_gid


def folders(places: Places) -> tuple[Folder, ...]:
    """Return the folders of the device. Who puts X-rays into the inbox from elsewhere is made a member of the group."""
    return (
        Folder(places.config, 0o750, "root", USER),
        Folder(places.state, 0o700, USER, USER),
        Folder(places.inbox.parent, 0o755, "root", "root"),
        Folder(places.inbox, 0o2770, USER, USER),
    )


def _run(program: str, *arguments: str) -> None:
    path = shutil.which(program, path="/usr/sbin:/sbin:/usr/bin:/bin")
    if path is None:
        raise Refused(f"This system has no {program}: install Debian's package passwd.")
    done = subprocess.run([path, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0:
        raise Refused(f"{program} did not work: {done.stdout.strip() or done.returncode}.")
