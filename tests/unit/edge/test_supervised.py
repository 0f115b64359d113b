"""What a process tells its service manager, and what `cxr-edge run` makes of it."""

import contextlib
import os
import signal
import sys
import threading
import time

import pytest

from edge.unattended.hearing import Hearing
from edge.unattended.lifecycle import Stop
from edge.unattended.notify import Notifier
from edge.unattended.supervisor import Supervisor
from tests.support.manager import Manager
from tests.support.processes import wait_for


@pytest.fixture(params=["abstract", "path"])
def listens(request, tmp_path):
    made = Manager(request.param == "abstract", tmp_path)
    yield made
    made.close()


@pytest.fixture
def speaks():
    made = []

    def make(address, longest_s=7.0, watched=True):
        made.append(Notifier(address, longest_s, watched=watched))
        return made[-1]

    yield make
    for notifier in made:
        notifier.close()


def test_a_process_says_when_it_serves_what_it_does_and_how_long_it_may_be_silent(listens, speaks):
    notifier = speaks(listens.address, 90.0)
    notifier.ready("reads what is in the spool")
    assert listens.lines() == ["READY=1", "STATUS=reads what is in the spool", "WATCHDOG_USEC=90000000"]


def test_where_the_unit_asks_for_no_watchdog_none_is_set(listens, speaks):
    speaks(listens.address, watched=False).ready("serves")
    assert listens.lines() == ["READY=1", "STATUS=serves"]


def test_progress_means_more_time_to_start_then_a_fed_watchdog_then_more_time_to_end(listens, monkeypatch, speaks):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    notifier = speaks(listens.address, 90.0)
    notifier.progress()
    notifier.ready("serves")
    for _ in range(1000):
        now[0] += 0.01  # ten seconds of small pieces of work
        notifier.progress()
        listens.lines()  # the kernel keeps ten messages for who does not read
    notifier.finishing()
    now[0] += 2
    notifier.progress()
    said = listens.lines()
    assert said[0] == "EXTEND_TIMEOUT_USEC=90000000"
    assert 9 <= said.count("WATCHDOG=1") <= 11, "not for each piece"
    assert said[said.index("STOPPING=1") :] == [
        "STOPPING=1",
        "STATUS=finishes what it has in hand",
        "EXTEND_TIMEOUT_USEC=90000000",
        "EXTEND_TIMEOUT_USEC=90000000",
    ]


def test_without_a_manager_or_with_one_that_is_gone_or_deaf_the_work_goes_on(tmp_path, listens, speaks):
    for address in ("", str(tmp_path / "nobody"), "@nobody-is-here"):
        notifier = speaks(address)
        notifier.ready("x")
        notifier.progress()
        notifier.stopping()
    began = time.monotonic()
    for _ in range(300):  # more than the kernel keeps for one that does not read
        speaks(listens.address).progress()
    assert time.monotonic() - began < 10


def test_what_a_process_starts_does_not_speak_for_it(monkeypatch, listens):
    monkeypatch.setenv("NOTIFY_SOCKET", listens.address)
    monkeypatch.setenv("WATCHDOG_USEC", "1")
    with contextlib.closing(Notifier.of_environment(5.0)) as notifier:
        notifier.ready("x")
    assert "NOTIFY_SOCKET" not in os.environ
    assert listens.heard("WATCHDOG_USEC=5000000") == 1


@pytest.fixture
def hearing():
    made = Hearing()
    yield made
    made.close()


def test_silence_is_counted_from_the_last_progress_by_what_the_process_has_asked_for(hearing, speaks):
    notifier = speaks(hearing.environment()["NOTIFY_SOCKET"])
    now = time.monotonic()
    assert not hearing.overdue(now + 80)
    assert hearing.overdue(now + 100), "a start that never ends"
    notifier.ready("serves")
    hearing.listen(os.getpid())
    assert hearing.ready
    assert not hearing.overdue(time.monotonic() + 6.5)
    assert hearing.overdue(time.monotonic() + 8)


def test_a_process_that_works_on_its_start_or_its_end_gets_the_time(hearing, speaks):
    notifier = speaks(hearing.environment()["NOTIFY_SOCKET"], 300.0)
    notifier.progress()
    hearing.listen(os.getpid())
    now = time.monotonic()
    assert not hearing.overdue(now + 290)
    hearing.start_over()
    assert hearing.overdue(now + 100), "what another one was given does not count for the next"
    assert hearing.stop_within(now) == now + 20
    notifier.finishing()
    hearing.listen(os.getpid())
    assert hearing.stop_within(now) > now + 290


def test_a_process_that_has_nothing_long_in_hand_is_given_the_usual_time_to_end(hearing, speaks):
    notifier = speaks(hearing.environment()["NOTIFY_SOCKET"], 300.0)
    notifier.ready("serves")
    notifier.stopping()
    notifier.progress()
    hearing.listen(os.getpid())
    asked = time.monotonic()
    assert asked + 19 < hearing.stop_within(asked) <= asked + 20
    assert hearing.overdue(asked + 21), "also where somebody else has told it"


def test_only_the_process_itself_is_believed(hearing, speaks):
    child = os.fork()
    if not child:
        speaks(hearing.environment()["NOTIFY_SOCKET"]).ready("liar")
        os._exit(0)
    os.waitpid(child, 0)
    hearing.listen(os.getpid())
    assert not hearing.ready


WORKER = """
import os, sys, time
from edge.unattended.notify import Notifier
notifier = Notifier.of_environment(float(sys.argv[2]))
notifier.ready("works")  # before it is seen: until then it would have the long time of a start
open(sys.argv[1], "a").write(f"{os.getpid()}\\n")
while True:
    time.sleep(0.05)
    if not os.path.exists(sys.argv[1] + ".hang"):
        notifier.progress()
"""


def worker(path, longest_s):
    return [sys.executable, "-c", WORKER, str(path), str(longest_s)]


def pids(path):
    return [int(line) for line in path.read_text().split()] if path.exists() else []


@pytest.fixture
def supervised(tmp_path):
    """Two workers under a supervisor in a thread; signal handlers belong to the main one."""
    done = threading.Event()
    supervisor = Supervisor({name: worker(tmp_path / name, 2.5) for name in ("one", "two")})
    thread = threading.Thread(target=supervisor.run, args=(done,))
    thread.start()
    wait_for(lambda: pids(tmp_path / "one") and pids(tmp_path / "two"), "both run")
    yield tmp_path
    done.set()
    thread.join()


def test_one_that_makes_no_progress_is_started_again_alone(supervised, caplog):
    time.sleep(3)  # longer than the limit: who works is left alone
    assert len(pids(supervised / "one")) == len(pids(supervised / "two")) == 1
    (supervised / "one.hang").touch()  # it runs on, and does nothing
    wait_for(lambda: "one makes no progress" in caplog.text, "it is seen")
    (supervised / "one.hang").unlink()
    wait_for(lambda: len(pids(supervised / "one")) == 2, "it is started again")
    assert len(pids(supervised / "two")) == 1


def test_one_that_is_frozen_is_started_again(supervised):
    (first,) = pids(supervised / "one")
    os.kill(first, signal.SIGSTOP)
    wait_for(lambda: len(pids(supervised / "one")) == 2, "it is started again")
    assert not os.path.exists(f"/proc/{first}")


def test_who_was_told_to_end_is_asked_at_once():
    asked = []
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    try:
        stop = Stop(lambda: asked.append(True))
        os.kill(os.getpid(), signal.SIGTERM)
        assert (stop.is_set(), asked) == (True, [True])
    finally:
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGINT, before[1])
