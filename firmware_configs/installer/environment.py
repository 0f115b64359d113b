"""What programs that the installer starts find in their environment."""

from __future__ import annotations

import os

_SYSTEM = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# What changes how Python, pip or the loader work is not taken over from whoever starts this.
_NOT_TAKEN = ("PYTHON", "PIP_", "LD_", "VIRTUAL_ENV")


def clean() -> dict[str, str]:
    """Return the environment of this process without what could change what is installed."""
    taken = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_TAKEN)}
    return {"TERM": "dumb", **taken, "PATH": _SYSTEM, "LANG": "C.UTF-8", "HOME": "/nonexistent"}
