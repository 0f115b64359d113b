"""What consoles write into a DICOM header of view and age, and what it is taken for."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from edge.pixels.headers import Headers, read_headers
from edge.pixels.study_header import PATIENT_AND_STUDY, SOURCE
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


@pytest.mark.parametrize(
    ("written", "day"),
    [
        ("20260131", "2026-01-31"),
        ("20240229", "2024-02-29"),
        ("20260231", None),
        ("20260229", None),
        ("00000101", None),
        ("20261301", None),
        ("2026013", None),
        ("2026.01.31", None),
        ("+2260131", None),
    ],
)
def test_a_day_that_does_not_exist_is_none(written, day):
    assert read_headers(of(StudyDate=written)).exam_date == day


@given(
    st.sampled_from([element for element in PATIENT_AND_STUDY | SOURCE if element != 0x00080005] + [0x00185101, 0x00540220]),
    st.sampled_from(["UI", "DA", "LO", "PN", "AS", "SQ", "US", "DS", "UN", "OB", "AT"]),
    st.sampled_from([b"", b"ISO_IR 192", b"ISO 2022 IR 87", b"GB18030", b"nonsense"]),
    st.binary(max_size=40),
)
def test_no_value_is_an_error_and_each_goes_through_the_pipe(tag, vr, charset, value):
    data = Dataset()
    for place, kind, content in ((0x00080005, "CS", charset), (tag, vr, value)):
        data[place] = RawDataElement(Tag(place), kind, len(content), content, 0, False, True)
    headers = read_headers(data)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(headers), type=Headers) == headers


@given(st.text(max_size=40))
def test_no_words_are_an_error(words):
    assert view_of_words(words) in ("AP", "PA", "LATERAL", "OTHER")
