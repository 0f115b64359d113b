"""Where everything lies on a board."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

USER = "cxr-edge"


@dataclass(frozen=True)
class Places:
    """The files and folders of the device below `root`, which is / on a board."""

    root: Path = Path("/")

    @property
    def software(self) -> Path:
        """What is installed."""
        return self.root / "opt/cxr-edge"

    @property
    def versions(self) -> Path:
        """One virtual environment for each version."""
        return self.software / "versions"

    @property
    def current(self) -> Path:
        """The link to the version in service; replaced by one rename."""
        return self.software / "current"

    @property
    def trial(self) -> Path:
        """There while a version is in service that is not confirmed yet."""
        return self.software / "trial"

    @property
    def config(self) -> Path:
        """device.toml and the PIN."""
        return self.root / "etc/cxr-edge"

    @property
    def device_toml(self) -> Path:
        """Who this device is and what it does; there once it is enrolled."""
        return self.config / "device.toml"

    @property
    def enrolled(self) -> Path:
        """SHA-256 of the enrolment file that was taken last, so that the same command again changes nothing."""
        return self.config / "enrolled.sha256"

    @property
    def state(self) -> Path:
        """Outbox, pictures, keys."""
        return self.root / "var/lib/cxr-edge"

    @property
    def inbox(self) -> Path:
        """The watched folder."""
        return self.root / "srv/cxr/inbox"

    @property
    def units(self) -> Path:
        """Where systemd looks for what a system's owner has put there."""
        return self.root / "etc/systemd/system"

    @property
    def journald(self) -> Path:
        """What bounds the journal."""
        return self.root / "etc/systemd/journald.conf.d"

    @property
    def command(self) -> Path:
        """The link by which people find the command."""
        return self.root / "usr/local/bin/cxr-edge"

    @property
    def lock(self) -> Path:
        """Held while anything is being changed."""
        return self.root / "run/cxr-edge-install.lock"

    def current_name(self) -> str:
        """Return the name of the version in service, or an empty text."""
        try:
            return Path(os.readlink(self.current)).name
        except OSError:
            return ""
