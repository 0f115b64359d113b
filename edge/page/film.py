"""A stored film as a PNG for the page, with the heat over it or without, made in a process of its own within limits.

A picture that was put aside may be one that kills decoders: it costs this process, and the page stays.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from edge.config import Decode
from edge.infer.local import Heat

SIDE = 1024
"""Pixels of the longer side: as much as a telephone or a printed slip shows."""
_MOST_BYTES = 8 * 2**20
_KEPT_BYTES = 8 * 2**20


class Order(msgspec.Struct, frozen=True):
    """What the child is to draw. max_pixels, max_bytes: see `edge.pixels.decode.Limits`; turn: the file of `edge.pixels.turn`."""

    path: str
    side: int
    heat: Heat | None
    max_bytes: int
    max_pixels: int
    memory_mb: int
    cpu_s: int
    turn: str


def order_of(path: Path, heat: Heat | None, limits: Decode, turn_file: Path) -> Order:
    """Return the order for a film within the limits of [decode]."""
    return Order(
        path=str(path),
        side=SIDE,
        heat=heat,
        max_bytes=limits.max_bytes,
        max_pixels=limits.max_pixels,
        memory_mb=limits.memory_mb,
        cpu_s=max(int(limits.timeout_s), 1),
        turn=str(turn_file),
    )


class Films:
    """Draws films, one at a time and none while `infer` reads one: two at once are more memory than a small board has."""

    def __init__(self, limits: Decode, turn_file: Path) -> None:
        self._limits, self._file = limits, turn_file
        self._turn = asyncio.Lock()
        self._kept: dict[tuple[Path, Heat | None], bytes] = {}

    async def draw(self, path: Path, heat: Heat | None, gone: Callable[[], Awaitable[bool]]) -> bytes | None:
        """Return a PNG, or None if the file cannot be drawn or nobody waits for it any more.

        `gone` says whether so. It is asked when it is this film's turn, since each tap on "with heat" asks for another.
        """
        film = (path, heat)
        if film not in self._kept:
            async with self._turn:
                if film not in self._kept and not await gone() and (drawn := await self._drawn(path, heat)) is not None:
                    self._keep(film, drawn)
        return self._kept.get(film)

    def _keep(self, film: tuple[Path, Heat | None], drawn: bytes) -> None:
        """The last few, so that turning the heat on and off draws each film once."""
        self._kept[film] = drawn
        while sum(map(len, self._kept.values())) > _KEPT_BYTES:
            del self._kept[next(iter(self._kept))]

    async def _drawn(self, path: Path, heat: Heat | None) -> bytes | None:
        order = order_of(path, heat, self._limits, self._file)
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "edge.page.film_child",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            drawn, _ = await asyncio.wait_for(child.communicate(msgspec.msgpack.encode(order)), self._limits.timeout_s)
        except (TimeoutError, asyncio.TimeoutError):  # two kinds on Python 3.10
            return None
        finally:
            await _end(child)
        return drawn if child.returncode == 0 and 0 < len(drawn) <= _MOST_BYTES else None


async def _end(child: asyncio.subprocess.Process) -> None:
    """Leave no child behind whatever ended the wait for it, a page that is told to stop among others."""
    if child.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()
