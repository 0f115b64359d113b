"""Where the figures of the benchmarks are kept."""

import json

from tests.benchmarks.__main__ import write


def test_a_run_of_some_benchmarks_keeps_the_figures_of_the_others(tmp_path):
    target = tmp_path / "build" / "bench.json"
    write(target, {"a": 1.0, "b": 2.0}, keep=True)
    write(target, {"b": 3.0}, keep=True)
    assert json.loads(target.read_text()) == {"a": 1.0, "b": 3.0}
    write(target, {"c": 4.0}, keep=False)
    assert json.loads(target.read_text()) == {"c": 4.0}, "a whole run is all there is"
