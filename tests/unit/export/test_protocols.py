"""Protocols: what is apart, what is said, and what is refused."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from export.dataset import Sample
from export.errors import DataError
from export.protocols import PROTOCOLS, RecordedPlan, make_plan, record_plan, replay_plan, shared_patients, training_only

CLASSES = ("normal", "pneumonia", "covid19")


def drawn(normal, pneumonia, covid, each=2):
    """Pictures of patients with `each` of them."""
    counts = {"normal": normal, "pneumonia": pneumonia, "covid19": covid}
    return [
        Sample(Path(f"data/dark/images/{label}{i}.png"), label, f"{label}{i // each}", "nih", "dark")
        for label, count in counts.items()
        for i in range(count)
    ]


def plan(samples, protocol, grouped=True, seed=7):
    return make_plan(samples, CLASSES, protocol, grouped=grouped, seed=seed, validation=0.125)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("grouped", [True, False])
def test_parts_are_apart_and_patients_too_where_they_are_grouped(protocol, grouped):
    samples = drawn(90, 90, 60, each=3)
    made = plan(samples, protocol, grouped)
    for named in made.splits:
        parts = [set(part.tolist()) for part in (named.split.train, named.split.validation, named.split.test)]
        assert sum(map(len, parts)) == len(set.union(*parts)) == len(samples)
        people = [{samples[i].patient for i in part} for part in parts]
        assert (not (people[0] & people[1] or people[0] & people[2] or people[1] & people[2])) == grouped
    assert (shared_patients(samples, made.splits) == 0) == grouped


@pytest.mark.parametrize(("protocol", "folds"), [("nested5", 5), ("tenfold", 10), ("fivefold", 5)])
def test_folds_together_test_every_picture_once(protocol, folds):
    samples = drawn(90, 90, 60)
    splits = plan(samples, protocol).splits
    assert [named.name for named in splits] == [f"fold-{i}" for i in range(1, folds + 1)]
    assert sorted(np.concatenate([named.split.test for named in splits])) == list(range(len(samples)))


def test_shares_of_the_protocols():
    samples = drawn(200, 200, 100)
    (split,) = (named.split for named in plan(samples, "holdout").splits)
    assert len(split.test) == 100
    nested = plan(samples, "nested5").splits[2].split
    assert (len(nested.train), len(nested.validation), len(nested.test)) == (320, 80, 100)
    alone = training_only(samples, CLASSES, seed=1, validation=0.2)
    assert (len(alone.train), len(alone.validation), len(alone.test)) == (400, 100, 0)


def test_p3_draws_700_where_there_are_enough_and_says_so_where_not():
    enough = plan(drawn(550, 550, 289, each=1), "p3")
    (split,) = (named.split for named in enough.splits)
    assert (len(split.train), len(split.validation), len(split.test), enough.remarks) == (560, 140, 689, [])
    few = plan(drawn(550, 550, 100, each=1), "p3")
    assert few.remarks == ["P3 draws 200 pictures of covid19 and tests on 89 others; of the 100 here 69 are drawn."]
    split = few.splits[0].split
    assert len(split.train) + len(split.validation) == 569
    with pytest.raises(DataError, match="P3's procedure is for the classes"):
        make_plan(drawn(9, 9, 9), ("normal", "covid19"), "p3", grouped=True, seed=1, validation=0.2)


def test_the_seed_decides():
    samples = drawn(40, 40, 40)
    first, again, other = (plan(samples, "holdout", seed=seed).splits[0].split.test.tolist() for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_recorded_folds_are_the_same_for_another_network():
    samples = drawn(40, 40, 40)
    made = plan(samples, "fivefold")
    text = msgspec.json.encode(record_plan(made, samples, CLASSES))
    recorded = msgspec.json.decode(text, type=RecordedPlan)
    assert recorded.splits[0].test[0].startswith("dark/images/")
    order = np.random.default_rng(0).permutation(len(samples))
    shuffled = [samples[i] for i in order]
    again = replay_plan(recorded, shuffled, CLASSES)
    for before, after in zip(made.splits, again.splits, strict=True):
        assert [samples[i].file for i in before.split.test] == [shuffled[i].file for i in after.split.test]
    with pytest.raises(DataError, match=r"name 1 pictures that are not in the data, such as dark/images/normal0\.png"):
        replay_plan(recorded, samples[1:], CLASSES)
    with pytest.raises(DataError, match="are for the classes normal, pneumonia, covid19, not normal, covid19"):
        replay_plan(recorded, samples, ("normal", "covid19"))


def test_too_few_patients_are_named_before_anything_else():
    with pytest.raises(DataError, match="The class covid19 has pictures of 4 patients; 5 folds by patient need at least 6"):
        plan(drawn(40, 40, 8), "fivefold")
    one = [Sample(Path("x"), "normal", "p", "nih", "dark")] * 9
    for refused in (lambda: plan(one, "holdout"), lambda: training_only(one, CLASSES, seed=1, validation=0.2)):
        with pytest.raises(DataError, match="of one patient"):
            refused()
    with pytest.raises(DataError, match="part of holdout has no picture of covid19"):
        plan(drawn(40, 40, 2), "holdout")
