"""Silent commissioning without a device: what follows from the events, what a crash leaves of them, agreement and drift."""

from __future__ import annotations

import math
import random
import resource

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edge.commissioning.agreement import cross, table, wilson
from edge.commissioning.drift import _HIGH, _LOW, Drift
from edge.commissioning.journal import Journal, journal_path, put_aside, read_events, read_standing
from edge.commissioning.standing import (
    ELSE,
    UNDECIDED,
    Reading,
    Released,
    Silenced,
    Standing,
    Withdrawn,
    offered,
    shown_and_why,
    standing,
)
from edge.errors import JournalDamaged

EPOCH, NEXT = "0" * 32, "1" * 32
CLASSES = ("normal", "pneumonia")


def silenced(why="new", after=0, epoch=EPOCH):
    return Silenced(why=why, bundle="b" * 64, epoch=epoch, after=after)


def reading(seq, label="normal", answer="normal", chance=0.9, barred=False, picture=None, epoch=EPOCH):
    name = f"{seq if picture is None else picture:064x}"
    return Reading(epoch=epoch, seq=seq, picture=name, label=label, answer=answer, chance=chance, barred=barred)


readings = st.builds(
    reading,
    st.integers(1, 6),
    label=st.sampled_from([*CLASSES, ELSE, UNDECIDED]),
    picture=st.integers(1, 4),
    answer=st.sampled_from(CLASSES),
    chance=st.sampled_from([0.4, 0.55, 0.9]),
    barred=st.booleans(),
)
withdrawn = st.builds(Withdrawn, epoch=st.just(EPOCH), seq=st.integers(1, 6))
events = st.one_of(readings, withdrawn, st.builds(silenced, st.sampled_from(["new", "drift", "model"])), st.just(Released(by="N")))


@settings(max_examples=300, deadline=None)
@given(st.lists(events, max_size=30))
@example([silenced(), reading(1, picture=1), reading(2, picture=1), reading(1, "pneumonia", picture=2)])
def test_a_film_and_a_picture_count_once_and_each_silence_begins_anew(happened):
    found = standing(happened)
    last = max((i for i, event in enumerate(happened) if isinstance(event, Silenced)), default=-1)
    since = happened[last + 1 :]
    released = next((i for i, event in enumerate(since) if isinstance(event, Released)), len(since))
    assert found.silent == (released == len(since))
    assert found.began == (happened[last] if last >= 0 else None)
    films, pictures, counted = {}, set(), []
    void = {(event.epoch, event.seq) for event in happened if isinstance(event, Withdrawn)}
    for place, event in enumerate(happened):
        if isinstance(event, Reading) and (event.epoch, event.seq) not in films:
            films[event.epoch, event.seq] = event.label
            if last < place <= last + released and event.picture not in pictures and (event.epoch, event.seq) not in void:
                pictures.add(event.picture)
                counted.append(event)
    assert found.given == films
    assert list(found.compared) == [event for event in counted if event.label != UNDECIDED]
    assert found.undecided == len(counted) - len(found.compared)


def test_readings_that_count_are_of_films_since_the_silence():
    now = standing([silenced(after=5), reading(6), reading(7, UNDECIDED)])
    assert [now.asks_for(EPOCH, seq, EPOCH) for seq in (5, 6, 7, 8)] == [False, False, False, True]
    assert now.asks_for(NEXT, 1, NEXT), "an outbox that was rebuilt since"
    assert not now.asks_for(NEXT, 1, EPOCH), "an earlier one"
    assert (len(now.compared), now.undecided) == (1, 1)
    assert (now.may_be_released(1), now.may_be_released(2)) == (True, False)
    released = standing([silenced(), reading(1), Released(by="N")])
    assert not released.asks_for(EPOCH, 2, EPOCH)
    assert not released.may_be_released(0)
    again = standing([silenced(), reading(1), Released(by="N"), silenced("drift", 3)])
    assert (again.silent, again.compared) == (True, ())
    assert not again.asks_for(EPOCH, 3, EPOCH)
    assert not Standing().may_be_released(0)


def test_without_the_table_a_device_is_silent_and_with_no_readings_it_never_is():
    assert shown_and_why(Standing(), 100) == (False, "new")
    assert shown_and_why(standing([silenced("drift")]), 100) == (False, "drift")
    assert shown_and_why(standing([silenced(), Released(by="N")]), 100) == (True, None)
    assert shown_and_why(Standing(), 0) == (True, None)


@settings(max_examples=60, deadline=None)
@given(st.lists(events, min_size=1, max_size=6), st.data())
def test_what_a_crash_leaves_is_a_beginning_and_what_comes_after_is_kept(tmp_path_factory, happened, data):
    path = tmp_path_factory.mktemp("journal") / "commissioning.jsonl"
    journal = Journal(path)
    ends = [0]
    for event in happened:
        journal.append(event)
        ends.append(path.stat().st_size)
    journal.close()
    assert read_events(path) == happened
    cut = data.draw(st.integers(0, ends[-1]))
    path.write_bytes(path.read_bytes()[:cut])
    whole = sum(end <= cut for end in ends) - 1
    assert read_events(path) == happened[:whole], "what was acknowledged before the cut, and nothing of what was not"
    again = Journal(path)
    assert path.stat().st_size == ends[whole], "what was cut off is removed"
    again.append(happened[0])
    again.close()
    assert read_events(path) == [*happened[:whole], happened[0]]


def test_a_full_disk_changes_nothing_and_the_next_event_is_kept(tmp_path):
    path = tmp_path / "commissioning.jsonl"
    journal = Journal(path)
    journal.append(silenced())
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10, hard))
    try:
        with pytest.raises(OSError, match="No space"):
            journal.append(reading(1))
        assert path.read_bytes() == before
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert journal.events == [silenced()]
    journal.append(reading(2))
    journal.close()
    assert read_events(path) == [silenced(), reading(2)]


@pytest.mark.parametrize(
    "line", [b"{}", b'{"event":"shown"}', b'{"event":"release","by":""}', b"\xff", b'{"event":"release","by":"N","x":1}']
)
def test_a_damaged_journal_is_never_believed(tmp_path, line):
    path = journal_path(tmp_path)
    journal = Journal(path)
    journal.append(silenced())
    journal.close()
    path.write_bytes(line + b"\n" + path.read_bytes())
    with pytest.raises(JournalDamaged, match="no answer is shown"):
        Journal(path)
    assert read_standing(tmp_path) == Standing(damaged=True)
    assert (put_aside(path).exists(), path.exists()) == (True, False)
    Journal(path).close()
    assert put_aside(path).name.endswith("-2")
    assert read_events(path) == []


@given(st.integers(0, 400), st.integers(1, 400), st.floats(0.001, 0.2))
def test_an_interval_ends_where_the_share_is_no_longer_likely(count, total, wrong):
    share = wilson(min(count, total), total, wrong)
    seen = share.count / total
    assert 0 <= share.low <= seen <= share.high <= 1
    from statistics import NormalDist

    z = NormalDist().inv_cdf(1 - wrong / 2)
    for end in (share.low, share.high):
        if 0 < end < 1:
            assert abs(seen - end) == pytest.approx(z * math.sqrt(end * (1 - end) / total), rel=1e-6, abs=1e-9)


def test_known_intervals():
    assert [round(end, 4) for end in (wilson(8, 10).low, wilson(8, 10).high)] == [0.4902, 0.9433]
    assert wilson(0, 0).high == 1.0


def test_agreement_counts_what_would_have_been_answered():
    compared = [
        reading(1, "normal", "normal", 0.95),
        reading(2, "pneumonia", "normal", 0.75),
        reading(3, ELSE, "normal", 0.65),
        reading(4, "pneumonia", "pneumonia", 0.55),
        reading(5, "normal", "normal", 0.99, barred=True),
    ]
    rows = table(compared, 0.4)
    assert [row.threshold for row in rows] == [0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    assert [(row.answered.count, row.agreed.count) for row in rows] == [(4, 2), (4, 2), (3, 1), (2, 1), (1, 1), (1, 1)]
    assert {row.answered.total for row in rows} == {5}
    assert {name: (share.count, share.total) for name, share in rows[0].classes.items()} == {"normal": (1, 3), "pneumonia": (1, 1)}
    assert rows[0].agreed.low < wilson(2, 4).low, "the intervals hold for all rows together"
    assert cross(compared, 0.6) == {
        ("normal", "normal"): 1,
        ("normal", "pneumonia"): 1,
        ("normal", ELSE): 1,
        (None, "pneumonia"): 1,
        (None, "normal"): 1,
    }
    assert offered(0.65) == (0.65, 0.7, 0.8, 0.9)


def test_each_bet_is_fair():
    steps = 200_000
    places = [(i + 0.5) / steps for i in range(steps)]
    for b in {*_LOW, *_HIGH}:
        assert sum(b * place ** (b - 1) for place in places) / steps == pytest.approx(1, abs=0.02)


def test_a_place_is_the_share_that_is_stranger_and_a_part_of_those_alike():
    watch = Drift(1e9)
    assert [watch._place(value, 0.25) for value in (0.5, 0.9, 0.5, 0.1)] == [0.25, 1.25 / 2, 0.5 / 3, 0.25 / 4]


def test_places_are_uniform_whatever_the_site_and_however_few_levels():
    rng = random.Random(3)
    watch = Drift(1e9)
    counts = [0] * 5
    for _ in range(5000):
        counts[int(5 * watch._place(min(rng.expovariate(3) // 0.25 / 4, 1), rng.random()))] += 1
    assert all(abs(count - 1000) < 130 for count in counts), counts


def test_false_alarms_are_as_rare_as_promised_and_a_change_is_found():
    once_in, length, runs = 2000, 400, 200
    alarms = 0
    for seed in range(runs):
        rng = random.Random(seed)
        watch = Drift(once_in)
        alarms += any(watch.see(round(rng.random(), 2), rng.random()) for _ in range(length))
    assert alarms <= runs * length / once_in, "Doob's bound on the mean"
    for change in (lambda rng: 0.2 * rng.random(), lambda rng: 1 - 0.2 * rng.random()):
        delays = []
        for seed in range(40):
            rng = random.Random(seed)
            watch = Drift(once_in)
            for _ in range(150):
                watch.see(rng.random(), rng.random())
            delays.append(next((i for i in range(300) if watch.see(change(rng), rng.random())), 300))
        assert sorted(delays)[36] < 60, delays


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0.001, 0.999)), max_size=40))
def test_the_watch_is_the_same_when_it_is_made_anew(pictures):
    one, two = Drift(1e9), Drift(1e9)
    for typicality, tie in pictures:
        one.see(typicality, tie)
    for typicality, tie in pictures:
        two.see(typicality, tie)
    assert one.evidence == two.evidence
    assert math.isfinite(one.evidence)
