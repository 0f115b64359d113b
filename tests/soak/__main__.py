"""`python -m tests.soak`: run the simulated clinic once, print its counts, and write them to a file."""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.soak.disk import enter_namespace
from tests.soak.plan import make_plan
from tests.soak.simulation import Simulation
from tests.soak.stage import Stuck
from tests.soak.verdict import Verdict, judge


def main() -> int:
    """Return the exit status: 0 if nothing was lost, counted twice or otherwise wrong."""
    reader = argparse.ArgumentParser("python -m tests.soak", description=__doc__)
    reader.add_argument("--studies", type=int, default=150)
    reader.add_argument("--kills", type=int, default=40)
    reader.add_argument("--minutes", type=float, default=0.5, help="in which the kills are; all of it takes longer")
    reader.add_argument("--seed", type=int, default=random.randrange(10**6))
    reader.add_argument("--out", type=Path, default=Path("build/soak.json"))
    reader.add_argument("--home", type=Path, help="empty folder for logs and databases, which is kept")
    given = reader.parse_args()
    enter_namespace(sys.argv[1:])
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    print(f"seed {given.seed}", flush=True)
    home = given.home or Path(tempfile.mkdtemp(prefix="cxr-soak-"))
    home.mkdir(parents=True, exist_ok=True)
    plan = make_plan(given.studies, given.kills, given.minutes, given.seed)
    began = time.monotonic()
    simulation = Simulation(plan, home)
    stuck = ""
    try:
        simulation.run()
    except Stuck as error:
        stuck = f"It did not come to its end: {error}."
    except KeyboardInterrupt:
        print("Stopped; every process of the simulation has ended.", file=sys.stderr)
        return 130
    finally:
        simulation.end()
    verdict = judge(simulation.site.evidence)
    report = _report(simulation, verdict, given.seed, time.monotonic() - began)
    text = json.dumps(report, indent=2) + "\n"
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(text, "utf-8")
    print(text)
    faults = [stuck] * bool(stuck) + verdict.faults
    for fault in faults:
        print(fault)
    if faults:
        for path in simulation.site.device.state.glob("outbox*"):  # its disk goes with this process
            shutil.copy(path, home)
        print(f"Logs and databases are in {home}")
    elif given.home is None:
        shutil.rmtree(home)
    return 1 if faults else 0


def _report(simulation: Simulation, verdict: Verdict, seed: int, seconds: float) -> dict[str, object]:
    site, weather = simulation.site, simulation.weather
    return {
        "studies": site.ledger.received(),
        "kills": site.processes.kills.total(),
        "broker_wipes": weather.wipes,
        "lost": verdict.lost,
        "duplicates": verdict.duplicates,
        "faults": len(verdict.faults),
        "kills_of_each": dict(site.processes.kills),
        "disk_fulls": weather.disk_fulls,
        "left_in_folder": weather.left_in_folder,
        "link_up_s": round(weather.up_s, 1),
        "link_down_s": round(weather.down_s, 1),
        "link_windows": weather.windows,
        "ended_by_themselves": dict(site.processes.ended),
        "seconds": round(seconds),
        "seed": seed,
        **verdict.figures,
    }


if __name__ == "__main__":
    sys.exit(main())
