"""The enrolment file and its code: whatever was changed, cut or mistyped is noticed, and named."""

from __future__ import annotations

import functools
import itertools
from datetime import date, datetime, timezone

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.enrolment import code as codes
from edge.enrolment import file
from edge.enrolment.file import MAGIC, MOST_BYTES, Enrolment, Unopened, WrongCode, lock, unlock
from edge.errors import CxrError

ENROLMENT = Enrolment(
    device="clinic-1",
    facility="Clinic 1",
    url="mqtts://centre.example:8883",
    https="https://centre.example:8444",
    ca="a",
    identity="b",
    centre="c",
    site_key="d",
    key_id="0badcafe",
    made=datetime(2026, 1, 1, tzinfo=timezone.utc),
    use_before=date(2026, 4, 1),
)
CODE = codes.new_code()


@pytest.fixture(scope="module")
def locked() -> bytes:
    """With cheaper scrypt than real ones: it is done for each example."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(file, "_Head", functools.partial(file._Head, n=2**10))
        return lock(ENROLMENT, CODE)


def test_what_was_locked_is_unlocked_by_its_code_alone(locked: bytes) -> None:
    assert unlock(locked, CODE) == ENROLMENT
    with pytest.raises(WrongCode):
        unlock(locked, codes.new_code())
    assert b"clinic-1" not in locked


def test_scrypt_as_it_is_used() -> None:
    one, two = lock(ENROLMENT, CODE), lock(ENROLMENT, CODE)
    assert one != two
    assert b'"n":32768,"r":8,"p":1' in one
    assert unlock(one, CODE) == unlock(two, CODE) == ENROLMENT


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_change_of_a_byte_is_noticed(locked: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(locked) - 1))
    by = data.draw(st.integers(1, 255))
    with pytest.raises(Unopened):
        unlock(locked[:at] + bytes([locked[at] ^ by]) + locked[at + 1 :], CODE)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_cut_is_noticed(locked: bytes, data: st.DataObject) -> None:
    with pytest.raises(Unopened):
        unlock(locked[: data.draw(st.integers(0, len(locked) - 1))], CODE)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_no_bytes_end_in_anything_but_a_sentence(content: bytes) -> None:
    for given_bytes in (content, MAGIC + content, MAGIC + len(content).to_bytes(4, "big") + content + bytes(40)):
        with pytest.raises(Unopened):
            unlock(given_bytes, CODE)


@pytest.mark.parametrize("head", [{"n": 2**26}, {"n": 3000}, {"r": 1024}, {"p": 99}, {"salt": "AA=="}, {"more": 1}])
def test_a_head_that_asks_for_much_memory_is_refused_before_it_is_given(head: dict[str, object]) -> None:
    fields = {"salt": "AAAAAAAAAAAAAAAAAAAAAA==", "n": 1024, "r": 8, "p": 1} | head
    encoded = msgspec.json.encode(fields)
    with pytest.raises(Unopened, match="damaged"):
        unlock(MAGIC + len(encoded).to_bytes(4, "big") + encoded + bytes(60), CODE)


def test_a_file_that_is_far_too_large_is_none() -> None:
    with pytest.raises(Unopened, match="no enrolment file"):
        unlock(MAGIC + bytes(MOST_BYTES), CODE)


def test_a_code_has_the_bits_that_are_promised() -> None:
    assert codes.BITS >= 75
    seen = {codes.new_code() for _ in range(200)}
    assert len(seen) == 200
    assert all(codes.read_code(code) == code and len(code) == 23 for code in seen)
    for place in (0, 1, 2, 3, 6, 12, 21):
        assert len({code[place] for code in seen}) > 20


@given(st.lists(st.text("0123456789ABCDEFGHJKMNPQRSTVWXYZ", min_size=4, max_size=4), min_size=4, max_size=4), st.data())
def test_a_code_is_typed_forgivingly(groups: list[str], data: st.DataObject) -> None:
    code = "-".join(group + codes._check(number, group) for number, group in enumerate(groups, 1))
    looks_like = {"0": "0oO", "1": "1iIlL", "V": "vVuU"}
    typed = "".join(
        data.draw(st.sampled_from(looks_like.get(sign, sign + sign.lower()))) + data.draw(st.sampled_from(["", " ", "-"]))
        for sign in code.replace("-", "")
    )
    assert codes.read_code(f"  {typed}\n") == code


def test_one_mistyped_digit_is_always_noticed_and_its_group_named() -> None:
    # x^5 = x^2 + 1, so by hand: 1, 2, 3, 4 times five.
    for code in ("00005-0000A-0000F-0000M", *(codes.new_code() for _ in range(20))):
        assert codes.read_code(code) == code
        for at, right in enumerate(code):
            for digit in set("0123456789ABCDEFGHJKMNPQRSTVWXYZ") - {right, "-"}:
                if right == "-":
                    continue
                with pytest.raises(CxrError, match=f"Group {at // 6 + 1} "):
                    codes.read_code(code[:at] + digit + code[at + 1 :])


def test_exchanged_digits_and_groups_are_always_noticed() -> None:
    for _ in range(100):
        code = codes.new_code()
        for at in range(22):
            pair = code[at : at + 2]
            if pair[0] != pair[1] and "-" not in pair:
                with pytest.raises(CxrError, match=f"Group {at // 6 + 1} "):
                    codes.read_code(code[:at] + pair[::-1] + code[at + 2 :])
        groups = code.split("-")
        for first, second in itertools.combinations(range(4), 2):
            exchanged = list(groups)
            exchanged[first], exchanged[second] = groups[second], groups[first]
            if exchanged != groups:
                with pytest.raises(CxrError, match=f"Group {first + 1} "):
                    codes.read_code("-".join(exchanged))


@given(st.text(max_size=60))
def test_no_text_is_taken_for_a_code_without_being_one(text: str) -> None:
    with pytest.raises(CxrError, match="Nothing was changed"):
        codes.read_code(text)
