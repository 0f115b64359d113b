"""The link between clinic and centre: TCP proxies that carry, break off, or swallow everything as a dead radio link does."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import Literal

State = Literal["up", "broken", "silent"]


class Link:
    """One proxy on loopback for each port of the centre; all of them fail together."""

    def __init__(self, targets: Sequence[int]) -> None:
        self.state: State = "broken"
        self.ports: list[int] = []
        self.carried = 0
        """Bytes that have reached the centre."""
        self._connections: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._servers = [asyncio.run_coroutine_threadsafe(self._listen(port), self._loop).result(10) for port in targets]

    def change(self, state: State) -> None:
        """Let it be so from now on. Silent: old and new connections stay open and bring nothing; else all old ones break."""

        def do() -> None:
            self.state = state
            if state != "silent":
                for writer in self._connections:
                    writer.transport.abort()

        self._loop.call_soon_threadsafe(do)

    def close(self) -> None:
        """Close everything."""

        async def do() -> None:
            for server in self._servers:
                server.close()
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
            await asyncio.sleep(0.1)

        asyncio.run_coroutine_threadsafe(do(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _listen(self, target: int) -> asyncio.Server:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with self._known(writer), contextlib.suppress(OSError, asyncio.CancelledError):
                await self._serve(reader, writer, target)

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        self.ports.append(server.sockets[0].getsockname()[1])
        return server

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: int) -> None:
        if self.state == "broken":
            return
        if self.state == "silent":
            while await reader.read(65536):
                pass
            return
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", target)
        with self._known(far_writer):
            await asyncio.gather(self._carry(reader, far_writer, 1), self._carry(far_reader, writer, 0))

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, counts: int) -> None:
        try:
            while piece := await reader.read(65536):
                if self.state == "up":
                    self.carried += counts * len(piece)
                    writer.write(piece)
                    await writer.drain()
        finally:
            if self.state == "up":  # one who waits at a dead link does not hear that the other end has gone
                writer.close()

    @contextlib.contextmanager
    def _known(self, writer: asyncio.StreamWriter) -> Iterator[None]:
        self._connections.add(writer)
        try:
            yield
        finally:
            self._connections.discard(writer)
            writer.transport.abort()
