"""The page about the footprint says what was measured, for every profile, in the form that the command writes."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks.footprint.cgroup import memory_group
from tests.benchmarks.footprint.films import read_by, write_films
from tests.benchmarks.footprint.table import END, PAGE, START, tables, write

PROFILES = sorted(path.stem for path in (Path(__file__).resolve().parents[2] / "firmware_configs/profiles").glob("*.toml"))
ROW = re.compile(
    r"\| [a-z0-9-]+ \| (\d+ MiB|\?) \| \d+ MiB(, not enforced)? \| \d+ MiB \| \d+ MiB \| \d+ MP \| \d of \d \| \d \| "
    r"\d+( \([a-z, ]+\))? \|"
)
SEEN = {"limit": 272, "limited": True, "peak": 250.6, "at_rest": 148.2, "delivered": 2, "megapixels": 16}
SEEN |= {"killed": 0, "ended": [], "shown": 2}
FIGURES = {
    "machine": "x86_64, Python 3.11.7",
    "profiles": {
        "board-a": SEEN | {"installed": 291.7, "peaks": {"infer": 30.0}, "films": {"JPEG": "result", "PNG": "decoder_memory"}},
        "board-b": SEEN
        | {"installed": None, "peaks": {}, "films": {"JPEG": "result"}, "limited": False}
        | {"killed": 2, "ended": ["decoder", "page"]},
    },
    "start_s": {"infer": 0.36, "watch": 0.14},
}


def rows(text):
    return [line for line in text.splitlines() if re.match(r"\| [a-z0-9-]+ \| [\d?]", line)]


def test_the_table_says_what_was_measured():
    text = tables(FIGURES)
    assert rows(text) == [
        "| board-a | 292 MiB | 272 MiB | 148 MiB | 251 MiB | 16 MP | 1 of 2 | 2 | 0 |",
        "| board-b | ? | 272 MiB, not enforced | 148 MiB | 251 MiB | 16 MP | 1 of 1 | 2 | 2 (decoder, page) |",
    ]
    assert all(ROW.fullmatch(row) for row in rows(text))
    assert "- board-a: PNG: `decoder_memory`" in text
    assert "| serves after | 0.36 s | 0.14 s | | | |" in text


def test_only_what_is_between_the_markers_is_written(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{START}\nold\n{END}\nafter\n")
    write(FIGURES, page)
    assert page.read_text() == f"before\n{START}\n{tables(FIGURES)}{END}\nafter\n"


def test_the_page_has_a_row_of_that_form_for_every_profile():
    inside = PAGE.read_text("utf-8").partition(START)[2].partition(END)[0]
    found = rows(inside)
    assert [row.split(" | ")[0].removeprefix("| ") for row in found] == PROFILES
    assert all(ROW.fullmatch(row) for row in found)


def test_what_a_film_of_the_benchmark_is_written_as_is_what_a_board_reads(tmp_path):
    films = write_films(tmp_path / "films", 1)
    assert len(films) == 9
    assert sum(read_by("armv7l", name) for name in films) == 7
    assert all(path.stat().st_size for path in films.values())


_TOO_MUCH = "import sys; part = bytearray(int(sys.argv[1]) << 20); print(len(part) >> 20)"


@pytest.mark.parametrize(("megabytes", "killed"), [(8, 0), (200, 1)])
def test_a_group_holds_what_runs_in_it_to_its_limit(megabytes, killed):
    with memory_group(100 * 2**20) as group:
        if group is None:
            pytest.skip("this machine lets nobody make control groups; the table then says so")
        command = group.command([sys.executable, "-c", _TOO_MUCH, str(megabytes)])
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            said, _ = child.communicate(timeout=60)
        assert (said == f"{megabytes}\n", group.killed()) == (not killed, killed)
        if os.access("/dev/kmsg", os.R_OK):
            assert group.victims() == [child.pid] * killed
        assert group.anonymous() >= 0
        path = group.path
    assert not path.exists()
