"""An object from the network: on the disk under its final name before its sender is told so, and the same twice is once."""

import os
from io import BytesIO
from itertools import pairwise

import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from edge.dicom.arrival import CANNOT_UNDERSTAND, OUT_OF_RESOURCES, SUCCESS, Admission, Arrival, spool_name
from edge.dicom.peers import Peer, find_peer, parse_peers, shown
from edge.errors import ConfigError
from edge.intake.spool import Spool
from tests.support.dicom import PATIENT, film

UID = "1.2.826.0.1.77"


@pytest.fixture
def spool(tmp_path):
    return Spool(tmp_path / "state")


@pytest.fixture
def data_set(tmp_path):
    """The bytes that travel: all of a file behind its meta information."""
    path = film(tmp_path / "film.dcm", UID)
    meta = pydicom.filereader.read_file_meta_info(path)
    return path.read_bytes()[132 + 12 + meta.FileMetaInformationGroupLength :]


def arrive(spool, content, *, cuts=(), uid=UID, syntax=ExplicitVRLittleEndian, max_bytes=10**6, has_room=lambda: True):
    arrival = Arrival(Admission(spool, max_bytes, has_room), ComputedRadiographyImageStorage, uid, syntax)
    edges = [0, *sorted(cuts), len(content)]
    for start, end in pairwise(edges):
        arrival.write(memoryview(content)[start:end])
    return arrival.finish()


def test_what_arrives_is_a_dicom_file_of_the_same_data_set(spool, data_set):
    assert arrive(spool, data_set) == SUCCESS
    (intake,) = spool.pending()
    read = pydicom.dcmread(intake.path)
    assert read.PatientName == PATIENT
    assert read.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert read.file_meta.MediaStorageSOPInstanceUID == UID
    assert intake.path.read_bytes().endswith(data_set), "it is not encoded again"
    assert not list(spool.arriving.iterdir())


def test_its_name_shows_nothing_of_the_patient(spool, data_set):
    arrive(spool, data_set)
    (intake,) = spool.pending()
    assert intake.original_name == spool_name(UID)
    assert not [word for word in (*PATIENT.split("^"), "MRN", "1.2.826", "1.2.3") if word in intake.path.name]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(0, 4000), max_size=8))
def test_however_it_is_cut_it_is_one_intake(spool, data_set, cuts):
    assert arrive(spool, data_set, cuts=cuts) == SUCCESS
    (intake,) = spool.pending()
    assert intake.path.read_bytes().endswith(data_set)


def test_other_bytes_under_the_same_uid_are_another_intake(spool, data_set):
    arrive(spool, data_set)
    arrive(spool, data_set[:-1] + b"\x09")
    first, second = spool.pending()
    assert first.id != second.id
    assert first.original_name == second.original_name


def test_it_is_forced_to_the_disk_before_its_sender_is_told(spool, data_set, monkeypatch):
    done = []
    fsync, rename = os.fsync, os.rename

    def note_fsync(handle):
        what = os.readlink(f"/proc/self/fd/{handle}")
        if what.startswith(str(spool.arriving)):
            done.append(("file", os.fstat(handle).st_size))
        else:
            done.append(("folder", what))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "rename", lambda source, target: (done.append(("rename", str(target))), rename(source, target)))
    assert arrive(spool, data_set) == SUCCESS
    (intake,) = spool.pending()
    assert done == [("file", intake.path.stat().st_size), ("rename", str(intake.path)), ("folder", str(spool.incoming))]


@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_what_cannot_be_forced_to_the_disk_is_not_acknowledged(spool, data_set, monkeypatch, call):
    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, fail)
    assert arrive(spool, data_set) == OUT_OF_RESOURCES
    assert not spool.pending()
    assert not list(spool.arriving.iterdir())


def test_without_room_nothing_is_written(spool, data_set, caplog):
    written = []
    spool.new_part = lambda: written.append(1)
    assert arrive(spool, data_set, has_room=lambda: False) == OUT_OF_RESOURCES
    assert not written
    assert "no room" in caplog.text


def test_what_is_too_large_is_read_to_its_end_and_leaves_nothing(spool, data_set, caplog):
    assert arrive(spool, data_set, cuts=[100, 3000], max_bytes=len(data_set) - 1) == OUT_OF_RESOURCES
    assert not spool.pending()
    assert not list(spool.arriving.iterdir())
    assert "max_file_mb" in caplog.text
    assert arrive(spool, data_set, max_bytes=len(data_set)) == SUCCESS


@pytest.mark.parametrize("content", ["empty", "noise", "other", "none", "nested"])
def test_what_has_not_the_announced_uid_is_not_understood(spool, data_set, content, caplog):
    damaged = {
        "empty": b"",
        "noise": os.urandom(5000),
        "other": data_set.replace(UID.encode(), b"1.2.826.0.1.78"),
        "none": data_set[data_set.index(b"\x08\x00\x18\x00") + 8 + len(UID) :],
        "nested": b"\x08\x00\x06\x00SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff" * 3000,
    }[content]
    assert arrive(spool, damaged) == CANNOT_UNDERSTAND
    assert not spool.pending()
    assert not list(spool.arriving.iterdir())
    assert UID not in caplog.text


def test_a_declared_length_of_gigabytes_before_the_uid_costs_nothing(spool):
    assert arrive(spool, b"\x08\x00\x05\x00UN\0\0\xf0\xff\xff\xff" + b"x" * 200_000) == CANNOT_UNDERSTAND


def test_implicit_value_representations_are_read_too(spool, tmp_path):
    data = pydicom.dcmread(film(tmp_path / "a.dcm", UID))
    content = BytesIO()
    pydicom.dcmwrite(content, pydicom.Dataset(data), implicit_vr=True, little_endian=True)
    assert arrive(spool, content.getvalue(), syntax=ImplicitVRLittleEndian) == SUCCESS


def test_parts_of_an_earlier_process_are_removed_and_are_no_intakes(spool):
    part = spool.new_part()
    part.write(b"half")
    assert not spool.pending()
    assert not spool.names_waiting()
    spool.remove_parts()
    assert not list(spool.arriving.iterdir())
    part.remove()


@pytest.mark.parametrize(
    ("entry", "peer"),
    [
        ("XRAY1@192.168.1.20", Peer("XRAY1", "192.168.1.20")),
        ("A B@C@10.0.0.1:104", Peer("A B@C", "10.0.0.1", 104)),
        ("PACS@[fd00::5]:104", Peer("PACS", "fd00::5", 104)),
        ("PACS@fd00:0:0::5", Peer("PACS", "fd00::5")),
        ("PACS@::ffff:10.0.0.1", Peer("PACS", "10.0.0.1")),
    ],
)
def test_an_entry_of_allow_names_a_machine(entry, peer):
    assert parse_peers([entry]) == (peer,)
    assert find_peer(parse_peers([entry]), peer.ae_title, peer.address) == peer


@pytest.mark.parametrize(
    "entry", ["XRAY1", "@10.0.0.1", "XRAY1@", "XRAY1@xray.local", "X@10.0.0.1:0", "X@10.0.0.1:x", "A" * 17 + "@10.0.0.1"]
)
def test_an_entry_that_makes_no_sense_is_named(entry):
    with pytest.raises(ConfigError, match=r"XRAY1@192\.168\.1\.20") as caught:
        parse_peers([entry])
    assert repr(entry) in str(caught.value)


def test_a_title_cannot_write_a_line_of_its_own_into_the_log():
    assert shown("XRAY 1\ncxr-dicom: ok\x1b[2J") == "XRAY 1?cxr-dicom: ok?[2J"


def test_title_and_address_both_have_to_fit():
    peers = parse_peers(["A@10.0.0.1", "B@10.0.0.2"])
    assert find_peer(peers, "A ", "::ffff:10.0.0.1") == peers[0]
    assert find_peer(peers, "A", "10.0.0.2") is None
    assert find_peer(peers, "a", "10.0.0.1") is None
