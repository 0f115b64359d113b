"""A Debian system for tests, without a board: made once by debootstrap, and run in throw-away copies that have no network.

A copy (`Board`) is an overlay in name spaces of its own: mounts, processes, network. Its processes see loopback alone; programs of
this machine, such as a broker, can be started beside them in the same network. When the copy is closed, all that runs in it is
killed and every mount is gone with its name space. Other architectures run by qemu-user-static.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.support.centre import ROOT
from tests.support.processes import ServerMissing, find_program, wait_for

_ROOTS = ROOT / "build" / "roots"
_CLONE_NEWNET = 0x40000000
_MISC = Path("/proc/sys/fs/binfmt_misc")
# Debian's name of an architecture, and qemu's.
_EMULATED = {"arm64": "aarch64", "armhf": "arm"}
# An emulated program would read of this machine's processors in /proc/cpuinfo, and the library by which LiteRT looks at them then
# ends with a segmentation fault. So it reads of two of a Raspberry Pi 4's (Cortex-A72), with features that qemu has.
_PROCESSOR = """\
processor\t: {number}
BogoMIPS\t: 108.00
Features\t: {features}
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd08
CPU revision\t: 3

"""
# Which processor qemu is. With all that it can be ("max") it has SME, and gets it wrong (seen with 7.2): the networks give other
# int8 outputs than anywhere else. The processors of boards have none.
_PROCESSORS = {"arm64": "cortex-a72", "armhf": "cortex-a15"}
_FEATURES = {
    "arm64": "fp asimd evtstrm crc32 cpuid",
    "armhf": "half thumb fastmult vfp edsp neon vfpv3 tls vfpv4 idiva idivt vfpd32 lpae evtstrm crc32",
}
_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8"}

# Run by the first process of a copy; its arguments are what lies below, the writable layer, the place of the merged tree, and what
# is read there as /proc/cpuinfo, if anything. /proc is still this machine's when its number is read.
_HOLD = r"""
set -e
read -r number rest </proc/self/stat
ip link set lo up
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" "$3"
mount -t proc proc "$3/proc"
[ ! -s "$4" ] || mount --bind "$4" "$3/proc/cpuinfo"
mount -t sysfs -o ro sysfs "$3/sys"
mount -t tmpfs -o mode=755 dev "$3/dev"
for node in null:3 zero:5 full:7 random:8 urandom:9; do mknod -m 666 "$3/dev/${node%:*}" c 1 "${node#*:}"; done
ln -s /proc/self/fd "$3/dev/fd"
mkdir -m 1777 "$3/dev/shm"
mount -t tmpfs -o mode=755 run "$3/run"
echo "$number" >"$2/number"
# The first process takes in what others leave behind.
sleep infinity &
wait
"""


def debian_root(architecture: str = "amd64", packages: Sequence[str] = ("python3",), suite: str = "bookworm") -> Path:
    """Return the folder of a Debian system with these packages, made if this machine has none yet. Nothing may write to it.

    Args:
        architecture: Debian's name: amd64, arm64, armhf.
        packages: beside Debian's smallest system.
        suite: Debian's release; bookworm has Python 3.11, trixie 3.13.

    Raises:
        ServerMissing: if debootstrap or the emulation is not there, or this is not root.
        AssertionError: if debootstrap fails, with its last words.
    """
    _require_root()
    made_of = f"{suite} {architecture} {' '.join(sorted(packages))}"
    place = _ROOTS / f"{architecture}-{hashlib.sha256(made_of.encode()).hexdigest()[:12]}"
    _ROOTS.mkdir(parents=True, exist_ok=True)
    with (_ROOTS / f"{place.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if architecture in _EMULATED:
            emulate(architecture)
        if not place.exists():
            _debootstrap(architecture, packages, suite, place)
    return place


def _debootstrap(architecture: str, packages: Sequence[str], suite: str, place: Path) -> None:
    half = place.with_suffix(".half")
    # What an earlier run left: debootstrap's own mounts are in a name space that is gone.
    shutil.rmtree(half, ignore_errors=True)
    log = place.with_suffix(".log")
    command = [find_program("unshare", "util-linux"), "--mount", find_program("debootstrap", "debootstrap"), "--variant=minbase"]
    command += [f"--arch={architecture}", f"--include={','.join(packages)}", suite, str(half), _mirror()]
    with log.open("wb") as output:
        done = subprocess.run(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, check=False)
    assert done.returncode == 0, f"debootstrap failed:\n{log.read_text(errors='replace')[-2000:]}"
    shutil.rmtree(half / "var/cache/apt", ignore_errors=True)
    half.rename(place)


def _mirror() -> str:
    """Where this machine's own package manager gets Debian's packages from."""
    asked = ["apt-get", "indextargets", "--format", "$(SITE) $(RELEASE) $(COMPONENT)", "Created-By: Packages"]
    for line in subprocess.run(asked, capture_output=True, text=True, check=True).stdout.splitlines():
        site, release, component = line.split()
        if component == "main" and "-" not in release:
            return site
    raise ServerMissing("this machine's package manager knows no Debian mirror, and a Debian root is made from one")


def emulate(architecture: str) -> None:
    """See to it that this machine's kernel runs programs of that architecture by qemu.

    Raises:
        ServerMissing: if it cannot be had.
    """
    _require_root()
    name = f"qemu-{_EMULATED[architecture]}"
    find_program(f"{name}-static", "qemu-user-static")
    if not (_MISC / "register").exists():
        mount = ["mount", "-t", "binfmt_misc", "binfmt_misc", str(_MISC)]
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ServerMissing(f"this kernel runs no programs of another architecture: {done.stderr.strip()}")
    if not (_MISC / name).exists():
        (_MISC / "register").write_bytes(Path(f"/usr/lib/binfmt.d/{name}.conf").read_bytes().strip())


def _require_root() -> None:
    if os.geteuid() != 0:
        raise ServerMissing("only root can make a Debian root and run programs in it: run these tests as root")


class Board:
    """A running throw-away copy of a Debian root."""

    def __init__(self, tree: Path, number: int, processor: str = "") -> None:
        """Args: tree: where it is mounted, in its own name space; number: of its first process; processor: what qemu is to be."""
        self.tree = tree
        self._number = str(number)
        self._environment = {**_ENVIRONMENT, "QEMU_CPU": processor} if processor else _ENVIRONMENT

    @property
    def number(self) -> str:
        """The process id of its first process, whose name spaces are the copy's."""
        return self._number

    def inside(self, *command: str, environment: Mapping[str, str] | None = None, folder: str = "/") -> list[str]:
        """Return the command line that runs `command` within the copy, with an environment of its own."""
        pairs = [f"{key}={value}" for key, value in {**self._environment, **(environment or {})}.items()]
        enter = ["nsenter", "--target", self._number, "--mount", "--net", "--pid", "--"]
        return [*enter, "env", "-i", f"--chdir={self.tree}{folder}", *pairs, "chroot", str(self.tree), *_at(folder), *command]

    def beside(self, *command: str) -> list[str]:
        """Return the command line that runs a program of this machine in the copy's network, where there is loopback alone."""
        return ["nsenter", "--target", self._number, "--net", "--", *command]

    @contextlib.contextmanager
    def network(self) -> Iterator[None]:
        """Within this block this thread is in the copy's network, and so is every program that it starts: a broker for it."""
        libc = ctypes.CDLL(None, use_errno=True)
        with open("/proc/thread-self/ns/net", "rb") as own, open(f"/proc/{self._number}/ns/net", "rb") as its:
            _enter(libc, its.fileno())
            try:
                yield
            finally:
                _enter(libc, own.fileno())

    def run(
        self, *command: str, text: str = "", environment: Mapping[str, str] | None = None, folder: str = "/", timeout_s: float = 300
    ) -> subprocess.CompletedProcess[str]:
        """Run a command within the copy to its end; both its outputs are in `stdout`. `text` is its standard input."""
        return subprocess.run(
            self.inside(*command, environment=environment, folder=folder),
            input=text,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
            timeout=timeout_s,
        )

    def must(self, *command: str, text: str = "", environment: Mapping[str, str] | None = None, timeout_s: float = 300.0) -> str:
        """Run a command that has to succeed, and return what it said.

        Raises:
            AssertionError: with what it said, if it fails.
        """
        done = self.run(*command, text=text, environment=environment, timeout_s=timeout_s)
        assert done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-4000:]}"
        return done.stdout

    def put(self, source: Path, place: str) -> None:
        """Copy a file or a folder of this machine into the copy, as `place`."""
        enter = ["nsenter", "--target", self._number, "--mount", "--"]
        subprocess.run([*enter, "mkdir", "-p", os.path.dirname(f"{self.tree}{place}")], check=True)
        subprocess.run([*enter, "cp", "-rT", "--reflink=auto", str(source), f"{self.tree}{place}"], check=True)

    def write(self, place: str, text: str) -> None:
        """Write a file in the copy."""
        self.must("sh", "-c", 'mkdir -p "$(dirname "$0")" && cat >"$0"', place, text=text)

    def read(self, place: str) -> str:
        """Return the text of a file in the copy."""
        return self.must("cat", place)


def _enter(libc: ctypes.CDLL, handle: int) -> None:
    if libc.setns(handle, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "a network name space cannot be entered")


def _at(folder: str) -> list[str]:
    """chroot leaves its program in /; env goes on to the folder."""
    return ["env", f"--chdir={folder}"] if folder != "/" else []


@contextlib.contextmanager
def board(root: Path, folder: Path, layers: Sequence[Path] = (), *, keep: bool = False) -> Iterator[Board]:
    """Run a throw-away copy of `root`, whose changes are under `folder` while it runs and removed at its end.

    Args:
        layers: changes of earlier copies to begin with, the newest first: `layer_of(folder)` of copies that were kept.
        keep: leave the changes there for that.
    """
    _require_root()
    tree = folder / "tree"
    for one in (tree, folder / "layer" / "upper", folder / "layer" / "work"):
        one.mkdir(parents=True)
    number, processors = folder / "layer" / "number", folder / "layer" / "cpuinfo"
    architecture = root.name.partition("-")[0]
    features = _FEATURES.get(architecture, "")
    processors.write_text("".join(_PROCESSOR.format(number=one, features=features) for one in (0, 1)) if features else "")
    unshare = [find_program("unshare", "util-linux"), "--mount", "--net", "--pid", "--fork", "--kill-child"]
    arguments = (":".join(map(str, [*layers, root])), *map(str, (folder / "layer", tree, processors)))
    log = folder / "board.log"
    with log.open("wb") as output:
        holder = subprocess.Popen(
            # Whatever ends this process ends the copy.
            ["setpriv", "--pdeathsig", "KILL", *unshare, "sh", "-c", _HOLD, "sh", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:

        def ready() -> bool:
            assert holder.poll() is None, f"no copy of {root}: {log.read_text(errors='replace')}"
            return number.exists() and number.read_text().endswith("\n")

        wait_for(ready, "the copy of the root is mounted")
        yield Board(tree, int(number.read_text()), _PROCESSORS.get(architecture, ""))
    finally:
        holder.kill()
        holder.wait()
        # The name space goes with its last process, a moment after the first was killed.
        wait_for(lambda: not _in_use(folder), "the copy's processes have ended")
        if not keep:
            shutil.rmtree(folder / "layer")
        tree.rmdir()


def layer_of(folder: Path) -> Path:
    """Return where a copy that was kept has its changes."""
    return folder / "layer" / "upper"


def _in_use(folder: Path) -> bool:
    """Whether any process still has the copy mounted."""
    for mounts in Path("/proc").glob("[0-9]*/mounts"):
        with contextlib.suppress(OSError):
            if f" {folder}/tree " in mounts.read_text():
                return True
    return False
