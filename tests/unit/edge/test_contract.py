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
