import contextlib
import json
import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.contract import codec, topics
from edge.contract.errors import ContractError
from edge.contract.messages import MAX_BYTES, SCHEMA, Result
from edge.contract.topics import Channel
from tests.golden import generate
from tests.golden.examples import COMMON, EXAMPLES

DECODERS = {
    "result": codec.decode_outcome,
    "refusal": codec.decode_outcome,
    "failure": codec.decode_outcome,
    "void": codec.decode_outcome,
    "status": codec.decode_status,
    "hello": codec.decode_hello,
    "receipt": codec.decode_receipt,
    "command": codec.decode_command,
    "reply": codec.decode_reply,
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_golden_bytes_are_read_and_written_unchanged(name):
    golden = (generate.MESSAGES / f"{name}.json").read_bytes()
    assert DECODERS[name](golden) == EXAMPLES[name]
    assert codec.encode(EXAMPLES[name]) == golden


def test_reference_files_are_current():
    assert {path: path.read_bytes() for path in generate.messages_now()} == generate.messages_now()
    assert generate.SCHEMA.read_bytes() == generate.schema_now(), "run: make reference"
    assert generate.DEVICE_TOML.read_text("utf-8") == generate.device_toml_now(), "run: make reference"
    assert generate.README.read_text("utf-8") == generate.readme_now(), "run: make reference"


def test_examples_set_every_field():
    for message in EXAMPLES.values():
        values = {field.name: getattr(message, field.name) for field in msgspec.structs.fields(message)}
        unset = [name for name, value in values.items() if value in (None, [], {}, "")]
        assert not unset, f"{type(message).__name__} leaves {unset} out"


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_unknown_field_is_accepted(name):
    payload = json.loads(codec.encode(EXAMPLES[name]))
    payload["from_the_future"] = {"any": ["thing"]}
    assert DECODERS[name](json.dumps(payload).encode()) == EXAMPLES[name]


def test_a_result_of_a_device_that_sends_no_heat_map_is_read():
    payload = json.loads(codec.encode(EXAMPLES["result"]))
    del payload["heat_map"]
    assert codec.decode_outcome(json.dumps(payload).encode()) == msgspec.structs.replace(EXAMPLES["result"], heat_map=None)


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_unknown_version_has_its_own_reason_even_if_its_fields_differ(name):
    payload = json.loads(codec.encode(EXAMPLES[name]))
    payload["schema"] = SCHEMA + 1
    for changed in (payload, {**payload, "device": 17, "seq": "forty-two", "id": None}):
        with pytest.raises(ContractError) as caught:
            DECODERS[name](json.dumps(changed).encode())
        assert caught.value.reason == "unknown_schema"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"seq": 0}, "invalid"),
        ({"seq": 1.5}, "invalid"),
        ({"epoch": "short"}, "invalid"),
        ({"device": "a/b"}, "invalid"),
        ({"device": "+"}, "invalid"),
        ({"facility": "x" * 65}, "invalid"),
        ({"probabilities": {"normal": 1.1, "covid19": 0.0}}, "invalid"),
        ({"probabilities": {"normal": 1.0}}, "invalid"),
        ({"heat_map": {"rows": 2, "columns": 2, "values": "AAA="}}, "invalid"),
        ({"heat_map": {"rows": 17, "columns": 1, "values": "AAAAAAAAAAAAAAAAAAAAAAA="}}, "invalid"),
        ({"heat_map": {"rows": 1, "columns": 1, "values": "no base64"}}, "invalid"),
        ({"kind": "opinion"}, "invalid"),
        ({"patient": "Jane Doe"}, "invalid"),
        ({"source_key": "1.2.840.113619"}, "invalid"),
    ],
)
def test_what_does_not_follow_the_contract_is_refused(change, reason):
    payload = {**json.loads(codec.encode(EXAMPLES["result"])), **change}
    with pytest.raises(ContractError) as caught:
        codec.decode_outcome(json.dumps(payload).encode())
    assert caught.value.reason == reason


json_values = st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))


@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode) | json_values.map(lambda value: json.dumps(value).encode()))
def test_arbitrary_bytes_give_a_reason_and_nothing_else(payload):
    for decode in DECODERS.values():
        with pytest.raises(ContractError) as caught:
            decode(payload)
        assert caught.value.reason in {"not_json", "invalid", "unknown_schema"}


def test_a_range_of_a_receipt_does_not_end_before_it_begins():
    receipt = json.loads(codec.encode(EXAMPLES["receipt"]))
    for plus in ([[2, 1]], [[5, 5], [9, 7]]):
        with pytest.raises(ContractError, match="ends before it begins"):
            codec.decode_receipt(json.dumps({**receipt, "plus": plus}).encode())
    assert codec.decode_receipt(json.dumps({**receipt, "plus": [[7, 7]]}).encode()).plus == [(7, 7)]


def test_size_is_limited_both_ways():
    big = Result(
        **{**COMMON, "seq": 1},
        pixel_hash="d" * 64,
        probabilities={"a": 0.5, "b": 0.5},
        label="a",
        abstained=False,
        threshold=0.5,
        model="e" * 64,
        preprocessing=1,
        quality=["x" * 47] * 200,
    )
    with pytest.raises(ContractError, match="too_large"):
        codec.encode(big)
    with pytest.raises(ContractError, match="too_large"):
        codec.decode_outcome(b" " * (MAX_BYTES + 1))


def test_nesting_that_would_overflow_the_stack_is_refused():
    with pytest.raises(ContractError):
        codec.decode_outcome(b'{"x":' * 1300 + b"1" + b"}" * 1300)


junk = st.one_of(
    st.builds(lambda depth, closed: b"[" * depth + b"]" * (depth * closed), st.integers(900, 3800), st.booleans()),
    st.builds(lambda depth: b'{"a":' * depth + b"1" + b"}" * depth, st.integers(900, 1300)),
    st.sampled_from([b'"\xff\xfe"', b'"\xed\xa0\x80"', b'{"\xff":1}', b"9" * 5000, b"1e999", b'"\\ud800"']),
)


def containers(value: object) -> list[dict | list]:
    """Every object and array in a JSON value, itself included."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [*([value] if isinstance(value, dict | list) else []), *(found for one in inner for found in containers(one))]


@pytest.mark.parametrize("name", EXAMPLES)
@given(junk=junk, data=st.data())
def test_junk_at_any_level_behind_any_wrong_field_gives_a_reason_and_nothing_else(name, junk, data):
    message = json.loads(codec.encode(EXAMPLES[name]))
    wrong = data.draw(st.sampled_from([None, *message]))
    if wrong is not None:
        message[wrong] = {}
    place = data.draw(st.sampled_from(containers(message)))
    if isinstance(place, list):
        place.insert(data.draw(st.integers(0, len(place))), "JUNK")
    else:
        items = list(place.items())
        items.insert(data.draw(st.integers(0, len(items))), ("from_the_future", "JUNK"))
        place.clear()
        place.update(items)
    payload = json.dumps(message).encode().replace(b'"JUNK"', junk)
    with contextlib.suppress(ContractError):  # what is not looked at may be accepted
        DECODERS[name](payload)


device_names = st.from_regex(re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}"), fullmatch=True)


@given(device_names, st.sampled_from(Channel))
def test_topics_come_back(device, channel):
    assert topics.parse(topics.topic(device, channel)) == (device, channel)


@given(st.text(max_size=80))
def test_a_topic_that_parses_is_one_that_is_built(name):
    try:
        device, channel = topics.parse(name)
    except ContractError:
        return
    assert topics.topic(device, channel) == name


@pytest.mark.parametrize("device", ["", "+", "#", "a/b", "-a", "a b", "x" * 65, "é"])
def test_a_name_that_could_not_stand_in_a_topic_is_refused(device):
    with pytest.raises(ContractError, match="bad_device"):
        topics.topic(device, Channel.RESULT)
