"""Who may see the page: one PIN of the site, a cookie for half a day, and less and less patience with wrong PINs."""

from __future__ import annotations

import errno
import hmac
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path

from edge.durable import write_durably
from edge.errors import ConfigError

COOKIE = "cxr_session"
LASTS_S = 12 * 3600.0
_MOST_SESSIONS = 200
_FREE_TRIALS = 5
_LONGEST_WAIT_S = 300.0
_MOST_PEERS = 1000
_FREE_TRIALS_OF_ALL = 20
_EACH_TRIAL_S = 1.0


def load_pin(path: Path) -> str:
    """Read the PIN: 6 to 32 digits.

    Raises:
        ConfigError: if it is missing or no PIN.
    """
    try:
        pin = path.read_text("ascii").strip()
    except OSError as error:
        raise ConfigError(f"The page's PIN {path} cannot be read ({error.strerror}). `cxr-edge init` makes one.") from None
    except UnicodeDecodeError:
        pin = ""
    if not (pin.isascii() and pin.isdigit() and 6 <= len(pin) <= 32):
        raise ConfigError(f"{path} holds no PIN: it should be 6 to 32 digits on one line.")
    return pin


def has_pin(path: Path) -> bool:
    """Return whether there is a PIN that a person may have changed; an empty file is what a power cut has left."""
    return path.exists() and path.stat().st_size > 0


def make_pin(path: Path, owner: tuple[int, int] | None = None) -> str:
    """Write a random PIN of six digits that only its owner may read, onto the disk; one that is there is never overwritten.

    Args: owner: user and group that root gives it to, before it gets its name.

    Raises:
        FileExistsError: if there is one.
    """
    if has_pin(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    pin = f"{secrets.randbelow(10**6):06d}"
    write_durably(path, f"{pin}\n".encode("ascii"), owner)
    return pin


class Sessions:
    """Sessions of one process; a restart ends them all, and so does another PIN."""

    def __init__(self, read_pin: Callable[[], str], clock: Callable[[], float] = time.monotonic) -> None:
        """Args: read_pin: returns the present PIN, or raises ConfigError."""
        self._read_pin = read_pin
        self._pin = read_pin().encode()
        self._clock = clock
        self._ends: dict[str, float] = {}
        self._wrong: dict[str, tuple[int, float]] = {}
        self._wrong_of_all = 0.0
        """When the trials of all addresses together would be as if there had been none."""
        self._known: dict[str, None] = {}

    def wait_s(self, peer: str) -> float:
        """Return how long an address has to wait before its next trial, seconds.

        Who has many addresses has no more than one trial a second all the same. An address that was let in before does not wait for
        what others try, or they could lock the clinic out.
        """
        now = self._clock()
        of_all = 0.0 if peer in self._known else self._wrong_of_all - now - (_FREE_TRIALS_OF_ALL - 1) * _EACH_TRIAL_S
        return max(0.0, self._wrong.get(peer, (0, 0.0))[1] - now, of_all)

    def begin(self, pin: str, peer: str) -> str | None:
        """Return the cookie of a new session, or None: the PIN is wrong, or the address has to wait."""
        if self.wait_s(peer) > 0:
            return None
        self._look_at_pin()
        if not hmac.compare_digest(pin.strip().encode(), self._pin):
            self._note_wrong(peer)
            return None
        self._wrong.pop(peer, None)
        self._known.pop(peer, None)
        self._known[peer] = None
        if len(self._known) > _MOST_PEERS:
            del self._known[next(iter(self._known))]
        while len(self._ends) >= _MOST_SESSIONS:
            del self._ends[min(self._ends, key=self._ends.__getitem__)]
        token = secrets.token_urlsafe(32)
        self._ends[token] = self._clock() + LASTS_S
        return token

    def holds(self, token: str | None) -> bool:
        """Return whether a cookie belongs to a session that has not ended."""
        if token is None or self._ends.get(token, 0.0) <= self._clock():
            self._ends.pop(token or "", None)
            return False
        self._look_at_pin()
        return token in self._ends

    def end(self, token: str | None) -> None:
        """End a session."""
        self._ends.pop(token or "", None)

    def _look_at_pin(self) -> None:
        try:
            pin = self._read_pin().encode()
        except ConfigError:
            return  # it is just being written: the one before counts
        if not hmac.compare_digest(pin, self._pin):
            self._pin = pin
            self._ends.clear()
            self._known.clear()

    def _note_wrong(self, peer: str) -> None:
        count = self._wrong.get(peer, (0, 0.0))[0] + 1
        pause = min(2.0 ** max(count - _FREE_TRIALS, 0), _LONGEST_WAIT_S) if count >= _FREE_TRIALS else 0.0
        if len(self._wrong) >= _MOST_PEERS:
            self._wrong.pop(next(iter(self._wrong)))
        self._wrong[peer] = (count, self._clock() + pause)
        self._wrong_of_all = max(self._wrong_of_all, self._clock()) + _EACH_TRIAL_S
