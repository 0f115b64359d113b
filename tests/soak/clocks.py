"""Wall clocks that are wrong: a library that is loaded before all others, and what a process is told by."""

from __future__ import annotations

import subprocess
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

from tests.support.processes import find_program

Clock = Literal["right", "1970", "2050"]

_STARTS = {
    "1970": datetime(1970, 1, 1, tzinfo=timezone.utc),
    "2050": datetime(2050, 6, 1, tzinfo=timezone.utc),
}


class Clocks:
    """Environments for processes; a wrong clock begins where it does when this is made, and goes on through restarts."""

    def __init__(self, folder: Path) -> None:
        self._library = folder / "clock.so"
        source = Path(__file__).with_name("clock.c")
        command = [find_program("tcc", "tcc"), "-shared", "-nostdlib", "-o", str(self._library), str(source)]
        subprocess.run(command, check=True, timeout=60)
        self._made = time.time()

    def beside(self, days: float, *, synchronised: bool = False) -> dict[str, str]:
        """Return what a process has to find in its environment for its clock to be so many days ahead."""
        said = {"CLINIC_SYNCHRONISED": "1"} if synchronised else {}
        return {"LD_PRELOAD": str(self._library), "CLINIC_CLOCK": str(int(days * 86400))} | said

    def environment(self, clock: Clock) -> dict[str, str]:
        """Return what a process has to find in its environment for its clock to be that."""
        if clock == "right":
            return {}
        offset = int(_STARTS[clock].timestamp() - self._made)
        return {"LD_PRELOAD": str(self._library), "CLINIC_CLOCK": str(offset)}
