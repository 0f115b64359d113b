"""Lines of the log: one an event, bounded, and without what a file says of a patient."""

import io
import json
import logging
import os
import re
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.unattended import logs
from edge.unattended.logs import Flood, Logfmt, event

PAIR = re.compile(r'([a-z_]+)=("(?:[^"\\]|\\.)*"|[^" ]+)(?: |$)')


def parsed(line):
    """Return the pairs of a line; all of it must be pairs."""
    found, at = {}, 0
    while at < len(line):
        match = PAIR.match(line, at)
        assert match, line[at:]
        found[match[1]] = json.loads(match[2]) if match[2].startswith('"') else match[2]
        at = match.end()
    return found


def record(text, *values, level=logging.WARNING, name="edge.dicom.guard", **extra):
    made = logging.LogRecord(name, level, "", 0, text, values, None)
    made.__dict__.update(extra)
    return made


@given(st.text(), st.dictionaries(st.from_regex(r"[a-z]{1,8}", fullmatch=True), st.text(), max_size=3))
def test_a_line_is_one_line_whatever_stands_in_it(text, fields):
    fields = {f"x_{name}": value for name, value in fields.items()}
    line = Logfmt("dicom").format(record("%s", text, fields=fields))
    assert line.isprintable()
    found = parsed(line)
    assert found["text"] == text
    assert {name: found[name] for name in fields} == fields
    assert (found["process"], found["level"], found["event"]) == ("dicom", "warning", "guard")


@pytest.mark.parametrize("set_right", [True, False])
def test_without_a_clock_the_time_is_that_since_a_boot(monkeypatch, set_right):
    monkeypatch.setattr(logs, "synchronised", lambda: set_right)
    found = parsed(Logfmt("infer").format(record("x")))
    assert ("time" in found, "boot" in found, "seconds" in found) == (set_right, not set_right, not set_right)


def test_a_kind_of_line_has_a_code():
    assert event(record("the centre keeps seq %d apart: %s")) == "the_centre_keeps_seq_apart"
    assert event(record("seq %d: %s", 1, "x", event="outcome")) == "outcome"
    assert event(record("%s", name="edge.delivery.relay")) == "relay"


def test_an_error_is_told_by_its_kind_and_place_and_not_by_what_it_says():
    try:
        {}["Lovelace^Ada"]
    except KeyError:
        line = Logfmt("infer").format(logging.LogRecord("x", logging.ERROR, "", 0, "odd", (), sys.exc_info()))
    found = parsed(line)
    assert found["error"] == "KeyError"
    assert found["at"].startswith("test_logs.py:")
    assert "Lovelace" not in line


def test_the_journal_is_told_the_level():
    lines = [Logfmt("x", priority=True).format(record("t", level=level))[:3] for level in (20, 30, 40, 50)]
    assert lines == ["<6>", "<4>", "<3>", "<3>"]


def test_a_flood_is_cut_and_counted_and_other_lines_come(monkeypatch):
    now, told = [100.0], []
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    flood = Flood(told.append, per_minute=5)
    came = [flood.filter(record("rejected: %s", str(number))) for number in range(1000)]
    assert came == [True] * 5 + [False] * 995
    assert flood.filter(record("connected"))
    assert not told
    now[0] += 61
    assert flood.filter(record("connected"))
    (line,) = told
    assert parsed(Logfmt("dicom").format(line)).items() >= {"count": "995", "of": "rejected"}.items()
    now[0] += 61
    assert flood.filter(record("rejected: %s", "again"))
    assert len(told) == 1


SCRIPT = """
import logging, sys
from pathlib import Path
from edge.unattended.logs import set_up
set_up("dicom", Path(sys.argv[1]))
for number in range(1500):
    logging.getLogger(f"edge.{number}").warning("x" * 4000)
    logging.getLogger("edge.flood").warning("peer %d", number)
raise ValueError("Lovelace^Ada")
"""


def ran(tmp_path, **environment):
    clean = {name: value for name, value in os.environ.items() if name != "JOURNAL_STREAM"}
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "log")]
    return subprocess.run(command, capture_output=True, text=True, env=clean | environment, timeout=60, check=False)


def test_what_is_kept_on_disk_is_bounded_and_an_unforeseen_error_names_nobody(tmp_path):
    done = ran(tmp_path)
    assert done.returncode == 1
    files = sorted((tmp_path / "log").iterdir())
    assert [path.name for path in files] == ["dicom.log", "dicom.log.1", "dicom.log.2", "dicom.log.3"]
    assert sum(path.stat().st_size for path in files) <= 4 * 2**20
    assert (tmp_path / "log").stat().st_mode & 0o077 == 0
    assert done.stderr.count('text="peer') == logs.PER_MINUTE
    last = parsed(done.stderr.splitlines()[-1])
    assert (last["error"], last["level"]) == ("ValueError", "critical")
    assert "Lovelace" not in done.stderr + files[0].read_text()
    assert "Traceback" not in done.stderr


def test_where_the_journal_listens_no_file_is_written(tmp_path):
    done = ran(tmp_path, JOURNAL_STREAM="8:1")
    assert not (tmp_path / "log").exists()
    assert done.stderr.startswith("<4>")


def test_a_log_that_cannot_be_written_does_not_end_the_work(monkeypatch):
    class Full(io.StringIO):
        def write(self, text):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(logging, "raiseExceptions", False)
    handler = logging.StreamHandler(Full())
    handler.handle(record("x"))
