"""Small files of the state folder whose bytes the disk has changed: told or taken for missing, never an end of the process."""

import contextlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge.commissioning.journal import Journal, journal_path, read_events
from edge.commissioning.standing import Released, Silenced
from edge.dicom.commitment import Instance, Request
from edge.dicom.commitment import Requests as Commitments
from edge.errors import BundleError, JournalDamaged
from edge.infer.local import LocalFacts, LocalStore
from edge.network.manifest import SHIPPED, read_manifest
from edge.pacs.cursor import Place, keep_place, read_place
from edge.requests import Requests
from edge.unattended.tally import TallyFile, read_tally


def journal(home):
    written = Journal(journal_path(home))
    written.append(Silenced(why="new", bundle="b" * 64, epoch="e" * 32, after=0))
    written.append(Released(by="Ada Möller"))
    written.close()
    return journal_path(home), lambda: read_events(journal_path(home))


def request(home):
    requests = Requests(home)
    requests.void("e" * 32, 1, "wrong_patient")
    (path,) = (home / "requests").iterdir()
    return path, requests.pending


def local(home):
    store = LocalStore(home)
    store.write("ab", LocalFacts(patient_name="Möller^Ada"))
    return home / "local/ab", lambda: store.read("ab")


def cursor(home):
    keep_place(home, Place(through={"e" * 32: 5}))
    (path,) = home.glob("pacs.json")
    return path, lambda: read_place(home)


def tally(home):
    counted = TallyFile(home)
    counted.note("result", "", {"total": 1.0})
    (path,) = (path for path in home.iterdir() if path.is_file())
    return path, lambda: read_tally(home)


def commitment(home):
    requests = Commitments(home / "commitments")
    requests.keep(Request(transaction="1.2", ae_title="XRAY1", address="127.0.0.1", instances=[Instance("1.2", "1.3")]))
    (path,) = (home / "commitments").iterdir()
    return path, requests.waiting


def manifest(home):
    (home / "manifest.json").write_bytes((SHIPPED / "manifest.json").read_bytes())
    return home / "manifest.json", lambda: read_manifest(home)


KINDS = [journal, request, local, cursor, tally, commitment, manifest]


@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 0.999), spoilt=st.one_of(st.binary(min_size=1, max_size=4), st.just(b"\xff"), st.just(b"[" * 3000)))
def test_changed_bytes_end_no_process(tmp_path_factory, make, place, spoilt):
    home = tmp_path_factory.mktemp("spoilt")
    path, read = make(home)
    whole = path.read_bytes()
    at = int(place * len(whole))
    path.write_bytes(whole[:at] + spoilt + whole[at + len(spoilt) :])
    with contextlib.suppress(JournalDamaged, BundleError):  # which say what to do
        read()
