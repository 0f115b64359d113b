"""What consoles write into a DICOM header of view and age, and what it is taken for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from edge.pixels.headers import read_headers
from edge.pixels.view_position import view_of_words

pytestmark = pytest.mark.filterwarnings("ignore")  # pydicom warns of values that the standard does not allow


def of(**elements: object) -> Dataset:
    data = Dataset()
    for name, value in elements.items():
        setattr(data, name, value)
    return data


@pytest.mark.parametrize(
    ("words", "view"),
    [
        *((words, "LATERAL") for words in ("LL", "RL", "LAT", "LATERAL", "llat", "L LAT", "LEFT LATERAL", "L-LAT", "CHEST RLAT")),
        *((words, "PA") for words in ("PA", "pa ", "CHEST_PA", "PA ERECT")),
        *((words, "AP") for words in ("AP", "AP SUPINE", "AP-PORTABLE")),
        *((words, "OTHER") for words in ("LLD", "LATERAL DECUBITUS", "LLO", "PA/LAT", "SCAPULA", "COLLATERAL")),
    ],
)
def test_words_for_a_view(words, view):
    assert view_of_words(words) == view
    assert read_headers(of(ViewPosition=words)).view == view


def test_the_direction_of_the_rows_tells_a_lateral_one():
    assert read_headers(of(PatientOrientation=["A", "F"])).view == "LATERAL"
    assert read_headers(of(PatientOrientation=["P", "F"])).view == "LATERAL"
    assert read_headers(of(PatientOrientation=["L", "F"])).view is None
    assert read_headers(of(PatientOrientation=["A", "F"], ViewPosition="PA")).view == "PA"
    assert read_headers(of(PatientOrientation=["A", "F"], ViewPosition="THORAX")).view == "LATERAL"
    assert read_headers(of(PatientOrientation="")).view is None


def test_names_that_people_gave_count_where_nothing_else_tells():
    assert read_headers(of(SeriesDescription="Chest lateral")).view == "LATERAL"
    assert read_headers(of(ProtocolName="THORAX PA", SeriesDescription="Thorax")).view == "PA"
    assert read_headers(of(SeriesDescription="Chest PA and lateral")).view is None
    assert read_headers(of(SeriesDescription="Chest lateral", ProtocolName="Chest PA")).view is None
    assert read_headers(of(SeriesDescription="Chest lateral", ViewPosition="AP")).view == "AP"


@pytest.mark.parametrize(
    ("age", "born", "exam", "years"),
    [
        ("045Y", None, None, 45),
        ("8Y", None, None, 8),
        ("08y", None, None, 8),
        ("6M", None, None, 0),
        ("018M", None, None, 1),
        ("003W", None, None, 0),
        ("000D", None, None, 0),
        ("000Y", None, None, None),
        ("000Y", "19600501", "20260131", 65),
        ("045Y", "20200201", "20260131", 5),
        ("045Y", "18000101", "20260131", 45),
        ("045Y", "20270101", "20260131", 45),
        (None, "19600501", None, None),
        ("45", None, None, None),
        ("Y", None, None, None),
        ("1234Y", None, None, None),
        ("\u0664\u0665Y", None, None, None),
    ],
)
def test_ages(age, born, exam, years):
    elements = {"PatientAge": age, "PatientBirthDate": born, "StudyDate": exam}
    assert read_headers(of(**{name: value for name, value in elements.items() if value is not None})).age_years == years


@given(st.text(max_size=40))
def test_no_words_are_an_error(words):
    assert view_of_words(words) in ("AP", "PA", "LATERAL", "OTHER")
