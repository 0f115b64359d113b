"""What `cxr-edge outbox` says, to a person and to a script."""

from __future__ import annotations

import json

import msgspec
import pytest

from edge.contract.codec import encode
from edge.contract.reasons import AID, NOT_SURE
from edge.listing import listing_lines
from edge.outbox import Entry, Outbox
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
