"""Run a command under the restrictions of a unit where no systemd runs: `python -m tests.support.confined` with a `Cell` on stdin.

What systemd.exec(5) says of each setting is done here by the same means of the kernel: mounts in a namespace of its own, a user
namespace, the capability bounding set, and filters of system calls by libseccomp, with the sets of names that systemd has. Needs
root. Limits of memory, tasks and addresses are the work of control groups and are not applied.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path

import msgspec

from tests.support.processes import find_program

_NEW = {"mnt": 0x00020000, "uts": 0x04000000, "ipc": 0x08000000, "user": 0x10000000, "net": 0x40000000}
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_BIND, _MS_REC, _MS_PRIVATE = 1, 2, 4, 8, 4096, 16384, 1 << 18
_MOUNT_SETATTR, _AT_FDCWD, _AT_RECURSIVE = 442, -100, 0x8000  # the same number on every architecture
_PR_SET_PDEATHSIG, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_SET_MDWE, _CAP_LAST = 1, 24, 38, 65, 63
_ALLOW, _EPERM, _EAFNOSUPPORT, _ENOSYS = 0x7FFF0000, 0x00050000 | 1, 0x00050000 | 97, 0x00050000 | 38
_NE, _EQ, _MASKED = 1, 4, 7
_PROT_WRITE, _PROT_EXEC = 2, 4
_FAMILIES = {"AF_UNIX": socket.AF_UNIX, "AF_INET": socket.AF_INET, "AF_INET6": socket.AF_INET6}
_OVERLAID = ("/etc", "/opt", "/srv", "/var/lib")

_libc = ctypes.CDLL(None, use_errno=True)


class Cell(msgspec.Struct):
    """`settings`: [Service] of a unit, all values of each key. `home`: a folder on a disk for what is laid over the system's.

    `binds`: folders by the place at which they are seen. `writable`: places that may be written to.
    """

    settings: dict[str, list[str]]
    command: list[str]
    environment: dict[str, str]
    home: str
    binds: dict[str, str]
    writable: list[str]
    user: int

    def yes(self, key: str) -> bool:
        """Return whether a setting is switched on."""
        return self.settings.get(key, ["no"])[-1] in ("yes", "true")

    def words(self, key: str) -> list[str]:
        """Return all the words of a setting, without the dash that allows them to be missing."""
        return [word.removeprefix("-") for value in self.settings.get(key, []) for word in value.split()]


def main() -> None:
    """Become what the cell describes."""
    cell = msgspec.json.decode(sys.stdin.buffer.read(), type=Cell)
    lists = [(value.startswith("~"), _expanded(value)) for value in cell.settings.get("SystemCallFilter", [])]
    os.setsid()
    _unshare("mnt", "uts", *(["ipc"] if cell.yes("PrivateIPC") else []), *(["net"] if cell.yes("PrivateNetwork") else []))
    if cell.yes("PrivateNetwork"):
        _bring_loopback_up()
    _see(cell)
    os.setgroups([])
    if cell.yes("PrivateUsers"):
        _own_users(cell.user)
    assert cell.settings["CapabilityBoundingSet"] == [""]
    for capability in range(_CAP_LAST + 1):
        _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    os.setresgid(cell.user, cell.user, cell.user)
    os.setresuid(cell.user, cell.user, cell.user)
    if cell.settings.get("LimitCORE") == ["0"]:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.umask(int(cell.settings["UMask"][-1], 8))
    os.chdir("/")
    # Nothing is left when the tests themselves are ended; a change of user would take this back, so it comes after that.
    _check(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))
    assert cell.yes("NoNewPrivileges")
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    _forbid(cell)
    if lists:
        _allow_only(lists)
    os.execve(cell.command[0], cell.command, cell.environment)


def _see(cell: Cell) -> None:
    """Lay out what the process sees of the files."""
    _mount("none", "/", "", _MS_REC | _MS_PRIVATE)
    for place in _OVERLAID:
        upper, work = Path(cell.home, place[1:], "upper"), Path(cell.home, place[1:], "work")
        for folder in (upper, work, *(upper / Path(at).relative_to(place) for at in cell.binds if Path(at).is_relative_to(place))):
            folder.mkdir(parents=True, exist_ok=True, mode=0o755)
        _mount("overlay", place, "overlay", 0, f"lowerdir={place},upperdir={upper},workdir={work}")
    for at, source in cell.binds.items():
        _mount(source, at, "", _MS_BIND | _MS_REC)
    assert cell.settings["ProtectSystem"] == ["strict"]
    _set("/", add=_MS_RDONLY)
    for at in ("/proc", "/dev", *cell.writable):
        _set(at, remove=_MS_RDONLY)
    for at in cell.words("NoExecPaths"):
        if Path(at).exists():
            _mount(at, at, "", _MS_BIND | _MS_REC)
            _set(at, add=_MS_NOEXEC)
    if cell.yes("PrivateTmp"):
        for at in ("/tmp", "/var/tmp"):
            _mount("tmpfs", at, "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=1777")
    nothing = [*(["/root", "/home", "/run/user"] if cell.yes("ProtectHome") else []), *cell.words("InaccessiblePaths")]
    for at in nothing:
        if Path(at).is_dir():
            _mount("tmpfs", at, "tmpfs", _MS_RDONLY | _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, "mode=0000")
    if cell.yes("PrivateDevices"):
        _few_devices()
    if cell.settings.get("ProtectProc") == ["invisible"]:
        subset = ",subset=pid" if cell.settings.get("ProcSubset") == ["pid"] else ""
        _mount("proc", "/proc", "proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, f"hidepid=2{subset}")
    if cell.yes("ProtectKernelTunables"):
        for at in ("/sys", "/proc/sys"):
            if Path(at).exists():
                _mount(at, at, "", _MS_BIND | _MS_REC)
                _set(at, add=_MS_RDONLY)


def _few_devices() -> None:
    names = ("null", "zero", "full", "random", "urandom", "tty")
    handles = {name: os.open(f"/dev/{name}", os.O_PATH) for name in names}
    _mount("tmpfs", "/dev", "tmpfs", _MS_NOSUID, "mode=0755")
    for name, handle in handles.items():
        Path("/dev", name).touch()
        _mount(f"/proc/self/fd/{handle}", f"/dev/{name}", "", _MS_BIND)
        os.close(handle)
    for name, place in (("fd", "/proc/self/fd"), ("stdout", "/proc/self/fd/1"), ("stderr", "/proc/self/fd/2")):
        Path("/dev", name).symlink_to(place)
    Path("/dev/shm").mkdir()
    _mount("tmpfs", "/dev/shm", "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=1777")


def _own_users(user: int) -> None:
    """Enter a user namespace in which root and the unit's own user are themselves, and all others are nobody."""
    above, ready = os.getpid(), os.pipe()
    writer = os.fork()
    if writer == 0:
        os.read(ready[0], 1)
        table = f"0 0 1\n{user} {user} 1\n"
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{above}/{name}").write_text(table)
        os._exit(0)
    _unshare("user")
    os.write(ready[1], b"x")
    assert os.waitpid(writer, 0)[1] == 0
    for end in ready:
        os.close(end)


def _forbid(cell: Cell) -> None:
    """Load what is refused by its arguments."""
    rules = _Filter(_ALLOW)
    if cell.yes("MemoryDenyWriteExecute"):
        _libc.prctl(_PR_SET_MDWE, 1, 0, 0, 0)  # what newer systemd does, where the kernel has it (6.3); else nothing happens
        both = _PROT_WRITE | _PROT_EXEC
        for name in ("mmap", "mmap2"):
            rules.add(_EPERM, name, (2, _MASKED, both, both))
        for name in ("mprotect", "pkey_mprotect"):
            rules.add(_EPERM, name, (2, _MASKED, _PROT_EXEC, _PROT_EXEC))
        rules.add(_EPERM, "shmat", (2, _MASKED, 0o100000, 0o100000))
    if "RestrictAddressFamilies" in cell.settings:
        allowed = {_FAMILIES[word] for word in cell.words("RestrictAddressFamilies")}
        for family in set(range(64)) - allowed:
            rules.add(_EAFNOSUPPORT, "socket", (0, _EQ, family, 0))
    if cell.yes("RestrictNamespaces"):
        rules.add(_ENOSYS, "clone3")  # its flags lie in memory, where a filter cannot look
        rules.add(_EPERM, "setns")
        for flag in (*_NEW.values(), 0x02000000, 0x20000000):
            for name in ("clone", "unshare"):
                rules.add(_EPERM, name, (0, _MASKED, flag, flag))
    if cell.yes("RestrictSUIDSGID"):
        for bit in (0o4000, 0o2000):
            for name, at in (("chmod", 1), ("fchmod", 1), ("fchmodat", 2), ("mkdir", 1), ("mkdirat", 2)):
                rules.add(_EPERM, name, (at, _MASKED, bit, bit))
            for name, at in (("open", 2), ("openat", 3)):  # only who makes a file says its mode
                rules.add(_EPERM, name, (at - 1, _MASKED, os.O_CREAT, os.O_CREAT), (at, _MASKED, bit, bit))
    if cell.yes("RestrictRealtime"):
        for policy in (1, 2, 6):
            rules.add(_EPERM, "sched_setscheduler", (1, _EQ, policy, 0))
    if cell.yes("LockPersonality"):
        rules.add(_EPERM, "personality", (0, _NE, 0, 0))
    if cell.yes("ProtectHostname"):
        for name in ("sethostname", "setdomainname"):
            rules.add(_EPERM, name)
    for key, names in (("ProtectClock", "@clock"), ("ProtectKernelModules", "@module"), ("ProtectKernelLogs", "syslog")):
        for name in _expanded(names) if cell.yes(key) else ():
            rules.add(_EPERM, name)
    rules.load()


def _allow_only(lists: list[tuple[bool, set[str]]]) -> None:
    """Load SystemCallFilter: the first list says what is allowed, the others add to it or take away."""
    allowed: set[str] = {"execve"} | _expanded("@default")
    for taken_away, names in lists:
        allowed = allowed - names if taken_away else allowed | names
    rules = _Filter(_EPERM)
    for name in sorted(allowed):
        rules.add(_ALLOW, name)
    rules.load()


class _Filter:
    """One filter of system calls, by libseccomp."""

    class _Comparison(ctypes.Structure):
        _fields_ = (("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))

    def __init__(self, otherwise: int) -> None:
        self._library = ctypes.CDLL("libseccomp.so.2")
        self._library.seccomp_init.restype = ctypes.c_void_p
        self._otherwise = otherwise
        self._context = ctypes.c_void_p(self._library.seccomp_init(otherwise))

    def add(self, action: int, name: str, *comparisons: tuple[int, int, int, int]) -> None:
        """Add a rule; a call that this architecture does not have needs none."""
        number = self._library.seccomp_syscall_resolve_name(name.encode())
        if number < 0 or action == self._otherwise:
            return
        array = (self._Comparison * max(len(comparisons), 1))(*(self._Comparison(*one) for one in comparisons))
        _check(self._library.seccomp_rule_add_array(self._context, action, number, len(comparisons), array))

    def load(self) -> None:
        _check(self._library.seccomp_load(self._context))


def _expanded(text: str) -> set[str]:
    """Return the names of the calls in the sets of a value of SystemCallFilter."""
    names: set[str] = set()
    for word in text.removeprefix("~").split():
        if word.startswith("@"):
            program = find_program("systemd-analyze", "systemd")
            said = subprocess.run([program, "syscall-filter", word], capture_output=True, text=True, check=True).stdout
            # The first two lines are the set and what it is for.
            members = [line.strip() for line in said.splitlines()[1:] if not line.strip().startswith("#")]
            names |= _expanded(" ".join(member for member in members if member))
        else:
            names.add(word)
    return names


def _bring_loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        fcntl.ioctl(one, 0x8914, struct.pack("16sh14x", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP


def _unshare(*names: str) -> None:
    _check(_libc.unshare(sum(_NEW[name] for name in names)))


def _mount(source: str, at: str, kind: str, flags: int, options: str = "") -> None:
    _check(_libc.mount(source.encode(), at.encode(), kind.encode() or None, ctypes.c_ulong(flags), options.encode() or None), at)


def _set(at: str, *, add: int = 0, remove: int = 0) -> None:
    attributes = struct.pack("QQQQ", add, remove, 0, 0)
    _check(_libc.syscall(_MOUNT_SETATTR, _AT_FDCWD, at.encode(), _AT_RECURSIVE, attributes, len(attributes)), at)


def _check(result: int, what: str = "") -> None:
    if result < 0:
        number = ctypes.get_errno() or -result
        raise OSError(number, os.strerror(number), what)


if __name__ == "__main__":
    main()
