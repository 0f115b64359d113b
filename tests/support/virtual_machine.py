"""A board that is none: a whole PC by qemu, with a golden card in its slot, a cable in its socket and a hardware watchdog.

It has no clock that is right, no screen and no keyboard. Its network is qemu's own: it gives an address, and from there nothing is
reached but the ports of this machine's loopback that `reaches` names; what it serves is reached through ports of this machine.
Power is cut by SIGKILL of qemu: the guest's own memory is gone with all that it had not yet written, but what it has handed to its
disk stays, in order (what a disk may forget is in tests/support/powercut.py).
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support.card_image import Card
from tests.support.processes import find_program, free_port, wait_for

CENTRE = "10.0.2.100"
"""The address under which the machine finds this one's ports."""
_SERVED = (22, 8080, 11112)
_FORWARD = Path(__file__).with_name("forward.py")


class VirtualMachine:
    """One board and its card, which is a copy of the golden one."""

    def __init__(
        self,
        folder: Path,
        card: Card,
        key: Path,
        *,
        reaches: Mapping[int, int],
        serves: tuple[int, ...] = _SERVED,
        memory_mb: int = 2048,
    ) -> None:
        """Args: key: a technician's private SSH key; reaches: port at CENTRE -> port here; serves: its ports that are reached."""
        folder.mkdir(parents=True)
        self.folder = folder
        self.image = folder / "card.img"
        self.console = folder / "console.log"
        self._card = card
        self._key = key
        self._memory_mb = memory_mb
        self._reaches = dict(reaches)
        self.ports = {port: free_port() for port in serves}
        self.resets = 0
        """How often it has started anew by itself, or was reset by its watchdog."""
        self._process: subprocess.Popen[bytes] | None = None
        self._keeper: threading.Thread | None = None
        self._plugged = True
        self._console_at = 0
        subprocess.run(["cp", "--sparse=always", "--reflink=auto", str(card.image), str(self.image)], check=True)

    @property
    def on(self) -> bool:
        """Whether it is under power."""
        return self._keeper is not None

    def start(self, *, cable: bool = True) -> None:
        """Put it under power, with or without a cable in its socket."""
        assert not self.on
        self._plugged = cable
        self._console_at = len(self._console())
        self._keeper = threading.Thread(target=self._keep, daemon=True)
        self._keeper.start()
        wait_for(self._answers, f"qemu runs; {self.folder / 'qemu.log'} says more")

    def _keep(self) -> None:
        """Start it, and start it anew each time it has been reset, until the power is cut.

        In a process of its own each time: a kernel that starts where another one has run is much slower under qemu, whose
        translations of the old one's code have to go first, and finds itself stalled.
        """
        keeper = threading.current_thread()
        while self._keeper is keeper:
            (self.folder / "qmp").unlink(missing_ok=True)
            with (self.folder / "qemu.log").open("ab") as log:
                command = ["setpriv", "--pdeathsig", "KILL", *self._command()]
                self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            if not self._plugged:
                wait_for(self._answers, "qemu runs")
                self.cable(plugged=False)
            if self._process.wait() != 0:
                return
            self._console_at = len(self._console())
            self.resets += 1

    def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            self.tell("query-status")
            return True
        return False

    def is_started(self) -> bool:
        """Whether, by its console, all that starts with it has been started; for when there is no cable."""
        return re.search(rb"Reached target \S*multi-user\.target", self._console()[self._console_at :]) is not None

    def _console(self) -> bytes:
        return self.console.read_bytes() if self.console.exists() else b""

    def cut(self) -> None:
        """Cut the power."""
        keeper, self._keeper = self._keeper, None
        assert keeper is not None
        assert self._process is not None
        self._process.kill()
        keeper.join()

    def close(self) -> None:
        """End it, and leave its folder."""
        if self.on:
            self.cut()

    def _command(self) -> list[str]:
        network = ["user,id=cable,restrict=on,hostname=cxr-edge"]
        network += [f"hostfwd=tcp:127.0.0.1:{here}-:{there}" for there, here in self.ports.items()]
        forward = f"cmd:{sys.executable} -I -S {_FORWARD}"
        network += [f"guestfwd=tcp:{CENTRE}:{there}-{forward} {here}" for there, here in self._reaches.items()]
        return [
            find_program("qemu-system-x86_64", "qemu-system-x86"),
            *(
                "-nodefaults",
                "-no-user-config",
                "-no-reboot",
                "-display",
                "none",
                "-machine",
                "q35",
                "-smp",
                "1",
                "-m",
                str(self._memory_mb),
            ),
            # One processor: two on a machine that has other work wait for each other, and the kernel finds them stalled. Counting
            # instructions instead of time (-icount) cost more than twice as much.
            # Without AVX2, whose gathering loads qemu 7.2 gets wrong: of every third number numpy then sees the first one alone.
            *("-accel", "tcg,thread=multi,tb-size=1024", "-cpu", "Nehalem"),
            *("-kernel", str(self._card.kernel), "-initrd", str(self._card.initrd)),
            # The journal on the console: what systemd says there by itself ends when somebody can log in.
            *("-append", f"{self._card.cmdline} console=ttyS0 systemd.journald.forward_to_console=1"),
            *("-chardev", f"file,id=console,path={self.console},append=on", "-serial", "chardev:console"),
            # As a Raspberry Pi: a disk whose partitions are called p1 and p2, no clock that goes on without power, random numbers
            # by hardware. Not qemu's own SD card: what is discarded there it fills with ones, for a quarter of an hour.
            *("-device", "nvme,drive=card,serial=card"),
            *("-drive", f"if=none,id=card,file={self.image},format=raw,cache=writeback,discard=unmap"),
            *("-rtc", "base=2000-01-01T00:00:00", "-device", "virtio-rng-pci"),
            *("-netdev", ",".join(network), "-device", "virtio-net-pci,netdev=cable,id=socket"),
            *("-device", "qemu-xhci,id=usb"),
            # `watchdog` arms it: a machine that is late because this one has other work is not one that hangs.
            *("-device", "i6300esb", "-action", "watchdog=none"),
            *("-qmp", f"unix:{self.folder / 'qmp'},server=on,wait=off"),
        ]

    def watchdog(self, *, armed: bool) -> None:
        """Whether the hardware watchdog resets the machine when nobody feeds it."""
        self.tell("set-action", watchdog="reset" if armed else "none")

    def cable(self, *, plugged: bool) -> None:
        """Put the network cable in, or pull it."""
        self._plugged = plugged
        self.tell("set_link", name="socket", up=plugged)

    def stick(self, image: Path) -> None:
        """Plug a USB stick in."""
        options = {"driver": "file", "filename": str(image), "node-name": "stick"}
        self.tell("blockdev-add", **options)
        self.tell("device_add", driver="usb-storage", bus="usb.0", drive="stick", id="plugged", removable=True)

    def pull_stick(self) -> None:
        """Pull it out, as people do."""
        self.tell("device_del", id="plugged")

    def tell(self, command: str, **arguments: Any) -> Any:
        """Tell qemu something by its own protocol (QMP), and return its answer.

        Raises:
            AssertionError: if it refuses.
        """
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(30)
            link.connect(str(self.folder / "qmp"))
            lines = link.makefile("rw")
            lines.readline()
            for asked in ({"execute": "qmp_capabilities"}, {"execute": command, "arguments": arguments}):
                lines.write(json.dumps(asked) + "\n")
                lines.flush()
                answer = json.loads(lines.readline())
                while "event" in answer:
                    answer = json.loads(lines.readline())
            assert "return" in answer, answer
            return answer["return"]

    def ssh(self, command: str, text: str | bytes = "", timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run a line of shell as the technician, who has nothing but a key; both its outputs are in `stdout`."""
        options = {
            "StrictHostKeyChecking": "no",
            "UserKnownHostsFile": "/dev/null",
            "LogLevel": "ERROR",
            "ConnectTimeout": "20",
            "BatchMode": "yes",
            "IdentitiesOnly": "yes",
        }
        program = find_program("ssh", "openssh-client")
        words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        done = subprocess.run(
            [program, "-p", str(self.ports[22]), "-i", str(self._key), *words, "technician@127.0.0.1", command],
            input=text.encode() if isinstance(text, str) else text,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            timeout=timeout_s,
        )
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(errors="replace"))

    def must(self, command: str, text: str | bytes = "", timeout_s: float = 60.0) -> str:
        """Run a line of shell that has to succeed, and return what it said."""
        done = self.ssh(command, text, timeout_s)
        assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout[-4000:]}"
        return done.stdout

    def answers(self, command: str = "true") -> bool:
        """Whether the technician gets in and the command succeeds."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.on and self.ssh(command, timeout_s=30).returncode == 0
        return False

    # While it is off, any computer reads and writes the boot partition.

    def _boot(self) -> list[str]:
        assert not self.on, "its card is in its slot"
        return ["-i", f"{self.image}@@{self._card.boot_at}"]

    def boot_files(self) -> set[str]:
        """Return the names of the files on the boot partition, folders left out."""
        said = subprocess.run(["mdir", "-b", *self._boot(), "::/"], capture_output=True, text=True, check=True).stdout
        return {line.removeprefix("::/") for line in said.splitlines() if not line.endswith("/")}

    def read_boot(self, name: str) -> str:
        """Return the text of a file there."""
        return subprocess.run(["mtype", *self._boot(), f"::/{name}"], capture_output=True, text=True, check=True).stdout

    def write_boot(self, name: str, content: bytes) -> None:
        """Write a file there."""
        part = self.folder / "to-boot"
        part.write_bytes(content)
        subprocess.run(["mcopy", "-o", *self._boot(), str(part), f"::/{name}"], check=True)
        part.unlink()

    def wipe_boot(self) -> None:
        """Damage its file system beyond repair."""
        assert not self.on, "its card is in its slot"
        with self.image.open("r+b") as card:
            card.seek(self._card.boot_at)
            card.write(bytes(2**20))
