"""`cxr-edge`: the composition root of the device. Adapters are built and wired here and in edge/cli_*.py, and nowhere else.

Imports stand inside the commands on purpose: each process loads only what it uses, which on a small board is most of its
start-up time and memory. For the same reason the command line is read with argparse (docs/adr/0006).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import edge
from edge.commands import by_hand, processes
from edge.commands import enrol as cli_enrol
from edge.commands import relay as cli_relay
from edge.errors import CxrError
from edge.unattended.hardening import begin_private

Arguments = argparse.Namespace
Command = Callable[[Arguments], None]

_MOST = 1_000_000


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command. Ends with SystemExit: 0, 1 (the answer is no), 2 (an error that a person can act on)."""
    # No linear algebra is done here; its idle threads would cost memory, and make fork unsafe.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if arguments is None:  # a process of its own, which may be changed
        begin_private()
    reader = parser()
    given = sys.argv[1:] if arguments is None else arguments
    if not given:
        reader.print_help()
        sys.exit(2)
    chosen = reader.parse_args(given)
    try:
        chosen.command(chosen)
    except CxrError as error:
        sentence = str(error)
    except BrokenPipeError:
        # The reader of our output has gone, as after `| head`; nothing is left to say, also not when Python flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        # A process of the device says it to a log, which may not hold the name of a picture.
        named = error.filename and not hasattr(chosen, "parent")
        sentence = f"the system says: {error.strerror or type(error).__name__}" + (f" ({error.filename})" if named else "")
    except KeyboardInterrupt:
        sys.exit(130)
    else:
        sys.exit(0)
    sys.exit(_complain(sentence))


def parser() -> argparse.ArgumentParser:
    """Return what reads the command line; `command` in the result is the function to call with it."""
    top = argparse.ArgumentParser(
        "cxr-edge",
        description="Chest X-rays read beside the machine that makes them. "
        + "A research aid; never the only basis of a decision.",
    )
    top.add_argument("--version", action="version", version=f"cxr-edge {edge.__version__}")
    # Without `prog` argparse measures the terminal and loads four compression libraries to write a usage that nobody reads.
    commands = top.add_subparsers(metavar="COMMAND", required=True, prog="cxr-edge")

    def add(name: str, command: Command, text: str, *, config: bool = True) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text)
        made.set_defaults(command=command)
        if config:
            made.add_argument("--config", type=Path, required=True, metavar="FILE", help="device.toml")
        return made

    add("run", _run, "Run the whole device: watch, infer, relay and, where configured, dicom, pacs and page under one supervisor.")
    for name, command, text in (
        ("watch", processes.watch, "Take finished files from the watched folder into the spool."),
        ("infer", processes.infer, "Turn each file of the spool into one committed outcome."),
        ("relay", cli_relay.relay, "Deliver outcomes to the centre and take its receipts."),
        ("dicom", processes.dicom, "Take what X-ray machines send over the network (C-STORE) into the spool."),
        ("pacs", processes.pacs, "Send answers back to the clinic's PACS (C-STORE)."),
        ("page", processes.page, "Serve the clinic's own page: send an X-ray, read the answer, see the day's list."),
    ):
        # Set by `cxr-edge run`, so that nothing survives its supervisor.
        add(name, command, text).add_argument("--parent", type=int, help=argparse.SUPPRESS)

    classify = add(
        "classify", by_hand.classify, "Read FILES once, from decoding to decision, without broker or outbox.", config=False
    )
    classify.add_argument("files", nargs="+", type=Path, metavar="FILES")
    classify.add_argument("--json", action="store_true", help="one JSON object a line")
    classify.add_argument("--bundle", type=Path, metavar="FOLDER", help="model bundle instead of the shipped one")
    classify.add_argument("--threshold", type=_share, metavar="SHARE", help="abstain below this probability, 0 to 1")

    outbox = add("outbox", by_hand.outbox, "Show what waits for the centre's receipt.")
    outbox.add_argument("--json", action="store_true", help="one JSON object a line")
    outbox.add_argument("--all", action="store_true", help="also what has its receipt")
    outbox.add_argument("--limit", type=_count, default=50, metavar="N", help="how many at most (50)")

    check = add(
        "check", by_hand.check, "Say in plain words what would stop the device from working; exit status 1 if something would."
    )
    how = check.add_mutually_exclusive_group()
    how.add_argument("--to-the-centre", action="store_true", help="then send a test film the whole way, until its receipt comes")
    how.add_argument("--software", action="store_true", help="only its network, and whether it reads device.toml and the outbox")
    check.add_argument("--timeout", type=_count, default=120, metavar="SECONDS", help="for the test film (%(default)s)")

    commission = add("commission", by_hand.commission, "Show how far silent commissioning is; release the device, or put it back.")
    asked = commission.add_mutually_exclusive_group()
    asked.add_argument("--release", action="store_true", help="show answers from now on")
    asked.add_argument("--silent", action="store_true", help="show no more answers, and compare anew")
    commission.add_argument("--by", metavar="NAME", default="", help="who releases; stays on the device")
    commission.add_argument("--threshold", type=_share, metavar="SHARE", help="one of those that are shown (the network's own)")

    export = add(
        "export", by_hand.export, "Write what waits for a receipt into one sealed file in FOLDER, to be carried to the centre."
    )
    export.add_argument("folder", type=Path, metavar="FOLDER")

    receipts = add("import-receipts", by_hand.import_receipts, "Take in the receipts that the centre has sealed in FILE.")
    receipts.add_argument("file", type=Path, metavar="FILE")

    key = add(
        "key", by_hand.key, "The site's key: show which there are, print one on paper, restore it from paper, make a new one."
    )
    key.add_argument("do", choices=("show", "paper", "restore", "rotate"), help="what to do")

    plain = add(
        "deidentify",
        by_hand.deidentify,
        "Write X-rays (DICOM) into FOLDER so that they name nobody, for the centre or for research.",
    )
    plain.add_argument("folder", type=Path, metavar="FOLDER")
    plain.add_argument("files", nargs="+", type=Path, metavar="FILES")

    enrol = add("enrol", cli_enrol.enrol, "Make this board the device of an enrolment FILE of the centre; its code is typed.")
    enrol.add_argument("file", type=Path, metavar="FILE")
    enrol.add_argument("--profile", type=Path, metavar="PROFILE", help="the kind of board, for a device.toml that is not there yet")

    init = add("init", by_hand.init, "Write a device.toml, a site key and the folders for one device into FOLDER.", config=False)
    init.add_argument("folder", type=Path, metavar="FOLDER")
    init.add_argument("--device", required=True, metavar="NAME", help="name of this device: letters, digits, - and _")
    init.add_argument("--facility", required=True, metavar="NAME", help="name of the clinic")
    init.add_argument("--page-port", type=_count, default=8080, metavar="PORT", help="of the clinic's own page (%(default)s)")
    init.add_argument("--broker", default="mqtt://127.0.0.1:1883", metavar="URL", help="where results go (%(default)s)")
    return top


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 0 to 1")
    return value


def _count(text: str) -> int:
    # By its length first: Python reads no number of thousands of digits, and SQLite takes none beyond 64 bits.
    if not text.isdecimal() or len(text) > len(str(_MOST)) or not 1 <= int(text) <= _MOST:
        raise argparse.ArgumentTypeError(f"a whole number from 1 to {_MOST} is wanted")
    return int(text)


def _complain(sentence: str) -> int:
    import logging

    if logging.getLogger().handlers:  # a process of the device; others speak to who has called them
        logging.error("%s", sentence, extra={"event": "ended"})
    else:
        sys.stderr.write(f"cxr-edge: {sentence}\n")
    return 2


def _run(arguments: Arguments) -> None:
    from edge.config import load_config
    from edge.unattended.lifecycle import Stop, only_one
    from edge.unattended.logs import set_up
    from edge.unattended.supervisor import Supervisor, own_command

    device = load_config(arguments.config)
    set_up("run", Path(device.state) / "log")
    stop = Stop()
    with only_one(Path(device.state), "run"):
        options = ("--config", str(arguments.config), "--parent", str(os.getpid()))
        Supervisor({name: own_command(name, *options) for name in processes.names(device)}).run(stop)


if __name__ == "__main__":
    main()
