"""What `cxr-edge outbox` says, to a person and to a script."""

from __future__ import annotations

import contextlib
import json

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge.commands.listing import DAMAGED, listing_lines
from edge.contract.codec import encode
from edge.contract.reasons import AID, NOT_SURE
from edge.outbox.writer import Entry, Outbox
from tests.golden.examples import EXAMPLES


@pytest.fixture
def outbox(tmp_path):
    box = Outbox(tmp_path / "outbox.db", "clinic-1")
    yield box
    box.close()


def record(box, kind, name, **changes):
    def payload(seq):
        return encode(msgspec.structs.replace(EXAMPLES[kind], epoch=box.epoch, seq=seq, **changes))

    return box.record(Entry(f"{name}{box.last_seq()}", kind, payload, original_name=name))[0]


def test_a_person_reads_what_became_of_each(outbox):
    record(outbox, "result", "a.png", label="pneumonia", abstained=False)
    record(outbox, "result", "b.png", abstained=True)
    record(outbox, "refusal", "c.png", reasons=["too_small"])
    record(outbox, "void", "", voids=1)
    counts, aid, void, refused, unsure, taken_back = listing_lines(outbox, 10, everything=True, as_json=False)
    assert counts.startswith("clinic-1: 4 outcomes, 4 wait")
    assert aid == AID
    assert void.endswith("takes back 1")
    assert refused.endswith("c.png: The picture is too small to read. Export it at full size.")
    assert unsure.endswith(f"b.png: {NOT_SURE}")
    assert taken_back.endswith("a.png: taken back; do not use it")
    assert "pneumonia" not in taken_back


def test_no_name_makes_a_line_of_its_own(outbox):
    record(outbox, "result", "a.png\n     9  receipted  result   b.png: normal\x1b[2J")
    lines = list(listing_lines(outbox, 10, everything=True, as_json=False))
    assert len(lines) == 3
    assert lines[2].isprintable()


def test_a_script_reads_the_same(outbox):
    record(outbox, "result", "a.png")
    record(outbox, "void", "", voids=1)
    void, result = (json.loads(line) for line in listing_lines(outbox, 10, everything=True, as_json=True))
    assert (result["original_name"], result["voided"], void["voided"], void["kind"]) == ("a.png", True, False, "void")


def test_a_damaged_row_is_said_and_the_others_follow(outbox):
    for name in ("a.png", "b.png", "c.png"):
        record(outbox, "result", name)
    spoil(outbox, 2, b"\0" * 512)
    lines = list(listing_lines(outbox, 10, everything=True, as_json=False))[2:]
    assert [DAMAGED in line for line in lines] == [False, True, False]
    assert lines[1].split()[0] == "2"
    assert "b.png" in lines[1]
    third, second, _ = (json.loads(line) for line in listing_lines(outbox, 10, everything=True, as_json=True))
    assert (second["seq"], second["epoch"], second["damaged"]) == (2, outbox.epoch, True)
    assert not third["damaged"]


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    kind=st.sampled_from(["result", "void"]),
    place=st.floats(0, 0.999),
    spoilt=st.one_of(st.binary(min_size=1, max_size=4), st.sampled_from([b"\xff", b'"', b"null", b"x", b"\0" * 512])),
)
def test_whatever_bytes_the_disk_has_changed_the_listing_goes_on(tmp_path_factory, kind, place, spoilt):
    with contextlib.closing(Outbox(tmp_path_factory.mktemp("spoilt") / "outbox.db", "clinic-1")) as box:
        record(box, "result", "a.png")
        record(box, kind, "b.png", **({"voids": 1} if kind == "void" else {}))
        whole = bytes(box.row(2)["payload"])
        at = int(place * len(whole))
        spoil(box, 2, whole[:at] + spoilt + whole[at + len(spoilt) :])
        assert len(list(listing_lines(box, 10, everything=True, as_json=False))) == 4
        assert len(list(listing_lines(box, 10, everything=True, as_json=True))) == 2
        box.typicalities(0)


@pytest.mark.parametrize(
    ("field", "value"),
    [(b'"voids":', b'"voidx":'), (b'"epoch":"', b'"epoch":"\xff'), (b'"voids":1', b'"voids":{}'), (b'"voids":1', b'"voids":""')],
)
def test_a_void_that_no_longer_says_what_takes_back_nothing(outbox, field, value):
    record(outbox, "result", "a.png")
    record(outbox, "void", "", voids=1)
    spoil(outbox, 2, bytes(outbox.row(2)["payload"]).replace(field, value))
    assert not {("", 1), (outbox.epoch, 1)} & outbox.voided()
    assert len(list(listing_lines(outbox, 10, everything=True, as_json=False))) == 4


def spoil(box, number, payload):
    box._db.execute("UPDATE outcome SET payload = ? WHERE number = ?", (payload, number))
