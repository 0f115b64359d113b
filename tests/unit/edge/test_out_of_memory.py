"""A child that a film has made large is the one that the kernel ends, not what it works for."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]

# The parent is as a process of the device is: private. What is printed: by how much the child has raised its value, who has its
# files, by how much the parent has raised its own, whether the child lives. A child that is forked has inherited that its files are
# root's; who is root may write them all the same, and would show nothing. Loaded before: what it could not read as whom it becomes.
ASK = """
import encodings.ascii, os, subprocess, sys, threading, time
import edge.pixels.decoder_child
from edge.unattended.hardening import begin_private
kind = sys.argv[1]
if kind == "forked" and os.getuid() == 0:
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
begin_private()
if kind in ("forked", "spawned"):
    from edge.pixels.decoder_process import DecoderProcess
    if kind == "spawned":
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
    child = DecoderProcess(112, 5)
else:
    command = [sys.executable, "-m", kind] + ([str(os.getpid()), "1024", "30"] if kind == "edge.pacs.child" else [])
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
def adjusted(pid):
    with open(f"/proc/{pid}/oom_score_adj") as file:
        return int(file.read())
own, until = adjusted(os.getpid()), time.monotonic() + 20
while True:  # a child begins with the value of its parent, then changes it, then hides what it holds
    state = (adjusted(child.pid) - own, os.stat(f"/proc/{child.pid}/mem").st_uid)
    if (state[0] > 0 and state[1] == 0) or time.monotonic() > until:
        break
    time.sleep(0.02)
time.sleep(0.1)
with open(f"/proc/{child.pid}/stat") as file:
    alive = file.read().rpartition(")")[2].split()[0] in "RS"
print(*state, adjusted(os.getpid()) - own, alive)
os.kill(child.pid, 9)
"""


@pytest.mark.parametrize("kind", ["forked", "spawned", "edge.page.film_child", "edge.pacs.child"])
def test_a_child_that_holds_films_is_ended_first_and_still_shows_its_memory_to_nobody(kind):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", ASK, kind]
    done = subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["600", "0", "0", "True"]


def test_no_unit_of_the_device_is_ended_before_such_a_child():
    units = (ROOT / "firmware_configs/systemd").glob("*.service")
    values = [int(re.findall(r"^OOMScoreAdjust=(-?\d+)$", path.read_text(), re.MULTILINE)[0]) for path in units]
    assert len(values) == 6
    assert max(values) < 600
