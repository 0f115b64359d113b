"""What consoles make of one number is one patient; what may be two patients stays two; a missing number is said to be missing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.config import Device, Watch
from edge.contract.codec import decode_outcome
from edge.infer.outcomes import OutcomeWriter, Picture
from edge.pixels.headers import NO_HEADERS, Headers
from edge.privacy.identifiers import normalised, patient_of
from edge.privacy.pseudonym import SiteKey
from tests.unit.edge.test_infer import BUNDLE

DEVICE = Device(device="clinic-1", facility="Clinic", state="s", site_key="k", watch=Watch(folder="f"))


@pytest.mark.parametrize(
    "same",
    [
        ("ab-12", "AB-12", "  Ab-12 ", "AB-12\0", "\uff21\uff22-\uff11\uff12", "AB\u201312", "AB\u201012", "ab\u200e-12"),
        ("12 34", "12  34", "12\t34", "12\u00a034", "12\u300034"),
        ("0012", "\u0660\u0660\u0661\u0662", "\u0966\u0966\u0967\u0968", "\u06f0\u06f0\u06f1\u06f2"),
        ("mu\u00f1oz 7", "MUN\u0303OZ 7"),
    ],
)
def test_one_number_as_consoles_and_keyboards_write_it_is_one_patient(same):
    assert len({patient_of(Headers(patient_id=number)) for number in same}) == 1
    assert patient_of(Headers(patient_id=same[0]))[0] is not None


@pytest.mark.parametrize(
    "two", [("12", "0012"), ("12 34", "1234"), ("1 234", "12 34"), ("1-23", "12-3"), ("A12", "12"), ("1/2", "12")]
)
def test_what_may_tell_two_patients_apart_is_kept(two):
    assert patient_of(Headers(patient_id=two[0])) != patient_of(Headers(patient_id=two[1]))


def test_one_number_of_two_issuers_is_two_patients():
    bare, first, second, again = (
        patient_of(Headers(patient_id="17", issuer_of_patient_id=issuer)) for issuer in (None, "HOSP", "TB-PROG", " hosp ")
    )
    assert len({bare, first, second}) == 3
    assert first == again


@pytest.mark.parametrize(
    "number",
    [
        "0",
        "000",
        "UNKNOWN",
        "Unknown Patient",
        "unknown_patient",
        "ANONYMOUS",
        "NA",
        "n/a",
        "N.A.",
        "^",
        "^^^",
        "-",
        "---",
        "?",
        "***",
        "None",
        "NULL",
        "<none>",
        "(unk)",
        "TEST",
        "9999",
        "999999",
        "No ID",
        "\u0660\u0660",
        "Inconnu",
        "DESCONOCIDO",
        "\uff10",
    ],
)
def test_what_people_write_where_there_is_no_number_is_said_to_be_a_placeholder(number):
    assert patient_of(Headers(patient_id=number)) == (None, "placeholder")


@pytest.mark.parametrize("number", [None, "", "   ", "\0", "\u200e"])
def test_no_number_is_said_to_be_missing(number):
    assert patient_of(Headers(sop_instance_uid="1.2", patient_id=number)) == (None, "empty")


@pytest.mark.parametrize("number", ["1", "9", "999", "10", "100", "unknown-7", "id 4", "an0n", "x", "007"])
def test_a_short_or_odd_number_may_be_a_real_one(number):
    assert patient_of(Headers(patient_id=number))[0] == number


@given(st.text())
def test_normalising_twice_is_normalising_once_and_the_result_can_be_hashed(text):
    once = normalised(text)
    assert normalised(once) == once
    once.encode("utf-8")
    assert "\x1f" not in once


def fields(headers, void=False):
    writer = OutcomeWriter(DEVICE, SiteKey(b"k" * 32), BUNDLE.manifest, "0" * 32)
    picture = Picture("sop:1.2", headers)
    return decode_outcome((writer.void(picture, 1, "wrong_patient") if void else writer.refusal(picture, "colour"))(2))


def test_an_outcome_says_why_it_names_no_patient():
    assert fields(NO_HEADERS).patient_missing == "not_dicom"
    assert fields(Headers(sop_instance_uid="1.2")).patient_missing == "empty"
    assert fields(Headers(patient_id="UNKNOWN")).patient_missing == "placeholder"
    known = fields(Headers(patient_id="K 7"))
    assert (known.patient_missing, known.patient) == (None, SiteKey(b"k" * 32).keyed("patient", "k 7"))
    assert fields(NO_HEADERS, void=True).patient_missing is None, "a void says nothing of a patient"


def test_source_keys_do_not_depend_on_how_numbers_are_normalised():
    writer = OutcomeWriter(DEVICE, SiteKey(b"k" * 32), BUNDLE.manifest, "0" * 32)
    assert writer.source_key(Picture("sop:1.2.840.113619")) == "0412c19c1e0e787c23484b08ca284a24c6a134b875aa8d26d2001b26735d9e8d"
