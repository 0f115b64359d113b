"""A stored film as a PNG for the page, with the heat over it or without, made in a process of its own within limits.

A picture that was put aside may be one that kills decoders: it costs this process, and the page stays.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import msgspec

from edge.config import Decode
from edge.local import Heat

SIDE = 1024
"""Pixels of the longer side: as much as a telephone or a printed slip shows."""
_MOST_BYTES = 8 * 2**20


class Order(msgspec.Struct, frozen=True):
    """What the child is to draw. max_pixels, max_bytes: see `edge.decode.Limits`."""

    path: str
    side: int
    heat: Heat | None
    max_bytes: int
    max_pixels: int
    memory_mb: int
    cpu_s: int


class Films:
    """Draws films, one at a time: two films of a large detector at once are more memory than a small board has."""

    def __init__(self, limits: Decode) -> None:
        self._limits = limits
        self._turn = asyncio.Lock()

    async def draw(self, path: Path, heat: Heat | None) -> bytes | None:
        """Return a PNG, or None if the file cannot be drawn."""
        order = Order(
            path=str(path),
            side=SIDE,
            heat=heat,
            max_bytes=self._limits.max_file_mb * 2**20,
            max_pixels=self._limits.max_megapixels * 10**6,
            memory_mb=self._limits.memory_mb,
            cpu_s=max(int(self._limits.timeout_s), 1),
        )
        async with self._turn:
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
            except TimeoutError:
                child.kill()
                await child.wait()
                return None
        return drawn if child.returncode == 0 and 0 < len(drawn) <= _MOST_BYTES else None
