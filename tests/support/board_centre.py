"""The centre beside a board: Mosquitto and the aggregator of this machine, in the board's network, where there is nothing else."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

from tests.support.board_root import Board
from tests.support.fleet import Fleet, broker_command, run
from tests.support.processes import find_program, running, wait_for


@contextlib.contextmanager
def centre_beside(board: Board, fleet: Fleet) -> Iterator[None]:
    """Run both until the end of the context."""
    said = fleet.folder / "aggregator.log"
    broker = board.beside(find_program("mosquitto", "mosquitto"), "-c", str(fleet.dir / "mosquitto.conf"))
    taker = board.beside(*broker_command("aggregate", "--authority", fleet.dir, "--db", fleet.database))
    with running(broker, fleet.folder / "mosquitto.log"), running(taker, said):
        wait_for(lambda: "Connected to" in said.read_text(errors="replace"), f"the aggregator connects; its log is {said}", 60)
        yield


def rows_of(fleet: Fleet, device: str) -> list[dict[str, object]]:
    """Return the outcomes of one device that the centre has committed."""
    lines = run("results", "--db", fleet.database, "--json").splitlines()
    return [row for row in map(json.loads, lines) if row["device"] == device]
