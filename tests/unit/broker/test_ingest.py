"""Whatever comes in, `classify` says exactly one thing about it and never fails."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.ingest import Accepted, Greeted, Inbound, Rejected, Replied, Reported, classify
from edge.contract import codec
from edge.contract.messages import MAX_BYTES, Reply
from edge.contract.topics import Channel
from tests.support import messages
from tests.support.messages import EPOCH, on_wire

DECISIONS = (Accepted, Rejected, Reported, Greeted, Replied)
REASONS = {"not_json", "unknown_schema", "invalid", "too_large", "bad_topic", "identity_mismatch"}

ours = st.sampled_from([f"cxr/v1/dev-a/{channel.value}" for channel in Channel])
anything_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
fields = sorted(json.loads(codec.encode(messages.result())))


def decide(topic: str, payload: bytes, **more: object):
    return classify(Inbound(topic, payload, 1_000, **more))


def changed(**changes: object) -> bytes:
    return json.dumps(json.loads(codec.encode(messages.result(seq=7))) | changes).encode()


def check_total(decision: object) -> None:
    assert sum(isinstance(decision, kind) for kind in DECISIONS) == 1
    if isinstance(decision, Rejected):
        assert decision.reason in REASONS
        if decision.delivered:
            assert decision.device is not None
            assert decision.epoch is not None
            assert decision.seq is not None
            assert 1 <= decision.seq < 2**53


@given(topic=st.text() | ours, payload=st.binary(max_size=400))
def test_any_bytes_on_any_topic(topic: str, payload: bytes) -> None:
    check_total(decide(topic, payload))


@given(topic=ours, payload=anything_json)
def test_any_json_on_our_topics(topic: str, payload: object) -> None:
    check_total(decide(topic, json.dumps(payload).encode()))


@given(name=st.sampled_from(fields), value=anything_json)
def test_any_value_in_any_field(name: str, value: object) -> None:
    check_total(decide("cxr/v1/dev-a/result", changed(**{name: value})))


@given(cut=st.integers(0, 600), at=st.integers(0, 600), byte=st.integers(0, 255))
def test_a_message_cut_short_or_with_one_byte_changed(cut: int, at: int, byte: int) -> None:
    topic, payload = on_wire(messages.result())
    check_total(decide(topic, payload[:cut]))
    spoilt = bytearray(payload)
    spoilt[at] = byte
    check_total(decide(topic, bytes(spoilt)))


def test_nesting_deeper_than_the_stack() -> None:
    check_total(decide("cxr/v1/dev-a/result", b"[" * 8000))
    check_total(decide("cxr/v1/dev-a/result", b'{"a":' * 1600))


@pytest.mark.parametrize("channel", ["result", "status", "hello", "reply"])
def test_nesting_behind_a_wrong_field(channel: str) -> None:
    for body in (b'{"device":1,"seq":"x","z":' + b"[" * 1500, b'{"device":1,"z":"\xff\xfe"}'):
        decision = decide(f"cxr/v1/dev-a/{channel}", body)
        assert isinstance(decision, Rejected)
        assert decision.reason in {"invalid", "not_json"}


def test_a_defect_in_reading_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def defect(payload: bytes) -> None:
        raise RuntimeError(f"about {payload!r}")

    monkeypatch.setattr(codec, "decode_outcome", defect)
    decision = decide(*on_wire(messages.result(seq=7)))
    assert isinstance(decision, Rejected)
    assert (decision.reason, decision.detail) == ("invalid", "this software fails to read it (RuntimeError)")
    assert (decision.seq, decision.delivered) == (7, True)


@pytest.mark.parametrize(
    "message",
    [messages.result(), messages.refusal(), messages.failure(), messages.void("dev-a", 2, 1)],
    ids=lambda m: type(m).__name__,
)
def test_outcomes_are_accepted_with_their_very_bytes(message) -> None:
    topic, payload = on_wire(message)
    decision = decide(topic, payload)
    assert isinstance(decision, Accepted)
    assert decision.outcome == message
    assert decision.payload is payload


def test_other_channels() -> None:
    assert isinstance(decide(*on_wire(messages.status(), Channel.STATUS)), Reported)
    assert isinstance(decide(*on_wire(messages.hello(), Channel.HELLO)), Greeted)
    reply = Reply(device="dev-a", id="ab" * 8, ok=True)
    assert isinstance(decide(*on_wire(reply, Channel.REPLY)), Replied)
    assert decide(*on_wire(messages.status(), Channel.STATUS), retained=True).retained


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "not_json"),
        (b"\xff\xfe", "not_json"),
        (b"{}", "invalid"),
        (changed(schema=2), "unknown_schema"),
        (changed(schema=2, seq="new style", device="dev-a"), "unknown_schema"),
        (changed(seq=0), "invalid"),
        (changed(probabilities={"covid": 2.0, "normal": 0.0}), "invalid"),
        (changed(filler="x" * MAX_BYTES), "too_large"),
        (changed(device="dev-b"), "identity_mismatch"),
    ],
)
def test_reasons(payload: bytes, reason: str) -> None:
    decision = decide("cxr/v1/dev-a/result", payload)
    assert isinstance(decision, Rejected)
    assert decision.reason == reason
    assert decision.device == "dev-a"


@pytest.mark.parametrize(
    "topic", ["", "cxr/v1/dev-a", "cxr/v2/dev-a/result", "cxr/v1/dev-a/receipt", "cxr/v1/a b/result", "cxr/v1/+/result"]
)
def test_topics_that_no_device_writes(topic: str) -> None:
    decision = decide(topic, codec.encode(messages.result()))
    assert isinstance(decision, Rejected)
    assert decision.reason == "bad_topic"
    assert not decision.delivered


@pytest.mark.parametrize("changes", [{"schema": 9}, {"label": 4}, {"filler": "x" * MAX_BYTES}])
def test_a_broken_outcome_is_delivered_if_it_says_which_it_is(changes: dict[str, object]) -> None:
    decision = decide("cxr/v1/dev-a/result", changed(**changes))
    assert isinstance(decision, Rejected)
    assert (decision.epoch, decision.seq, decision.delivered) == (EPOCH, 7, True)


@pytest.mark.parametrize(
    "changes",
    [
        {"schema": 9, "device": "dev-b"},
        {"schema": 9, "device": None},
        {"schema": 9, "seq": 0},
        {"schema": 9, "seq": 2**53},
        {"schema": 9, "seq": True},
        {"schema": 9, "seq": "7"},
        {"schema": 9, "epoch": EPOCH + "\n"},
        {"schema": 9, "epoch": EPOCH.upper()},
        {"schema": 9, "filler": "x" * 20_000},
    ],
)
def test_and_not_delivered_if_it_does_not_or_speaks_for_another(changes: dict[str, object]) -> None:
    decision = decide("cxr/v1/dev-a/result", changed(**changes))
    assert isinstance(decision, Rejected)
    assert not decision.delivered


def test_only_outcomes_have_seqs_to_deliver() -> None:
    decision = decide("cxr/v1/dev-a/hello", changed(schema=9))
    assert isinstance(decision, Rejected)
    assert decision.seq is None
    assert not decision.delivered
