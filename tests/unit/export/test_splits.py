from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export.dataset import CLASSES, Sample, read_dataset
from export.errors import DataError
from export.splits import patient_folds, require_patients

SAMPLES = st.lists(
    st.builds(
        Sample,
        file=st.just(Path("x.png")),
        label=st.sampled_from(CLASSES),
        patient=st.sampled_from([f"p{i}" for i in range(25)]),
        source=st.sampled_from(["nih", "cohen"]),
        dataset=st.sampled_from(["darkcovid", "ieee8023"]),
    ),
    min_size=1,
    max_size=120,
)


@given(SAMPLES, st.integers(2, 6), st.integers(0, 99))
@settings(max_examples=150, deadline=None)
def test_no_patient_is_on_two_sides_whatever_the_sets(samples, folds, seed):
    splits = patient_folds(samples, folds=folds, seed=seed)
    tested = np.concatenate([split.test for split in splits])
    assert sorted(tested) == list(range(len(samples)))
    for split in splits:
        parts = [split.train, split.validation, split.test]
        assert sorted(np.concatenate(parts)) == list(range(len(samples)))
        train, validation, test = ({samples[i].patient for i in part} for part in parts)
        assert not train & validation
        assert not train & test
        assert not validation & test


def test_folds_are_alike_and_the_seed_decides(data):
    samples = read_dataset(data, "darkcovid")
    first = patient_folds(samples, folds=5, seed=1)
    assert [len(split.test) for split in first] == [10] * 5
    assert all(sum(samples[i].label == "covid19" for i in split.test) == 2 for split in first)
    again, other = patient_folds(samples, folds=5, seed=1), patient_folds(samples, folds=5, seed=2)
    assert all(np.array_equal(a.test, b.test) for a, b in zip(first, again, strict=True))
    assert any(not np.array_equal(a.test, b.test) for a, b in zip(first, other, strict=True))


def test_a_class_of_one_patient_is_named():
    def sample(label, patient):
        return Sample(Path("x"), label, patient, "nih", "darkcovid")

    few = [*(sample("normal", f"n{i}") for i in range(9)), sample("covid19", "c1"), sample("covid19", "c1")]
    with pytest.raises(DataError, match="The class covid19 has pictures of 1 patient; 5 folds by patient need at least 6"):
        require_patients(few, 5)
    require_patients(few[:9], 8)
    with pytest.raises(DataError, match="normal has pictures of 9 patients"):
        require_patients(few[:9], 9)
