"""A machine that asks whether its objects are safe is answered once and truthfully, whatever is restarted meanwhile."""

import threading
import time

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import UID, ComputedRadiographyImageStorage, generate_uid
from pynetdicom import AE, evt

from edge.dicom import reports
from edge.dicom.arrival import spool_name
from edge.dicom.commitment import Instance, Judge, Request, Requests
from edge.dicom.reports import PUSH_MODEL, PUSH_MODEL_INSTANCE, Reporter
from edge.errors import CxrError
from edge.intake.spool import Spool
from edge.outbox.writer import Entry, Outbox
from tests.support.dicom import film
from tests.support.processes import free_port, wait_for
from tests.unit.edge.test_dicom_guard import HEAD, UID_1, Listening, begin_store, fragment

KNOWN, UNKNOWN = "1.2.826.0.1.1", "1.2.826.0.1.2"
TEXT = st.text(st.characters(codec="utf-8", categories=["L", "N", "P"]), min_size=1, max_size=20)


def request(*uids, transaction="1.2.3"):
    return Request(transaction, "XRAY1", "127.0.0.1", [Instance(str(ComputedRadiographyImageStorage), uid) for uid in uids])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(requests=st.lists(st.builds(Request, TEXT, TEXT, TEXT, st.lists(st.builds(Instance, TEXT, TEXT), max_size=3)), max_size=5))
def test_what_is_kept_comes_back_until_it_is_forgotten(tmp_path_factory, requests):
    folder = tmp_path_factory.mktemp("commitments")
    for request in requests:
        Requests(folder).keep(request)
    expected = {request.name: request for request in requests}
    assert {request.name: request for request in Requests(folder).waiting()} == expected
    for request in requests:
        Requests(folder).forget(request)
    assert Requests(folder).waiting() == []


def test_a_damaged_or_half_written_request_is_removed_and_the_others_stay(tmp_path, caplog):
    requests = Requests(tmp_path)
    requests.keep(request(KNOWN))
    (tmp_path / "damaged").write_bytes(b'{"transaction": 5')
    (tmp_path / "half.part").write_bytes(msgspec.json.encode(request(UNKNOWN)))
    assert requests.waiting() == [request(KNOWN)]
    assert len(list(tmp_path.iterdir())) == 1
    assert "damaged" in caplog.text


def test_the_name_of_its_file_shows_nothing_and_there_is_a_limit(tmp_path, monkeypatch):
    monkeypatch.setattr("edge.dicom.commitment._MOST_REQUESTS", 2)
    requests = Requests(tmp_path)
    for number in range(2):
        requests.keep(request(KNOWN, transaction=f"1.2.3.{number}"))
    requests.keep(request(KNOWN, transaction="1.2.3.1"))
    with pytest.raises(OSError, match="wait already"):
        requests.keep(request(KNOWN, transaction="1.2.3.9"))
    assert not [path for path in tmp_path.iterdir() if "1.2" in path.name or "XRAY" in path.name]


@pytest.fixture
def listening(tmp_path):
    port = free_port()
    running = Listening(tmp_path / "state", allow=(f"XRAY1@127.0.0.1:{port}",), silent_s=5.0)
    running.machine_port = port
    yield running
    running.close()


def outcome_of(state, intake):
    outbox = Outbox(state / "outbox.db", "clinic-1")
    place = f"{intake.id}.dcm"
    outbox.record(Entry(intake.id, "result", lambda seq: b"{}", original_name=intake.original_name, place=place))
    outbox.close()


def test_committed_is_what_waits_or_has_its_outcome(listening, tmp_path):
    spool = listening.spool
    judge = Judge(spool, tmp_path / "state/outbox.db", "clinic-1")
    asked = request(KNOWN, UNKNOWN)
    assert judge.judge(asked).unknown == asked.instances
    assoc = listening.associate()
    assoc.send_c_store(film(tmp_path / "a.dcm", KNOWN))
    assoc.release()
    verdict = judge.judge(asked)
    assert ([known.sop_instance for known in verdict.committed], [other.sop_instance for other in verdict.unknown]) == (
        [KNOWN],
        [UNKNOWN],
    )
    (intake,) = spool.pending()
    outcome_of(tmp_path / "state", intake)
    spool.settle(intake, f"done/{intake.id}")
    assert judge.judge(asked) == verdict


class Machine:
    """The X-ray machine's side: asks for commitment, and takes reports on the same association or on its own port."""

    def __init__(self, listening):
        self.listening = listening
        self.reports = []
        self.handlers = [(evt.EVT_N_EVENT_REPORT, self.take)]
        self.server = None

    def take(self, event):
        self.reports.append((event.event_type, event.event_information, event.assoc.is_acceptor))
        return 0x0000, None

    def serve(self):
        application = AE("XRAY1")
        application.add_supported_context(PUSH_MODEL, scu_role=True, scp_role=True)
        self.server = application.start_server(("127.0.0.1", self.listening.machine_port), block=False, evt_handlers=self.handlers)

    def close(self):
        if self.server is not None:
            self.server.shutdown()

    def ask(self, *uids, transaction=None, action=1, references=True):
        application = AE("XRAY1")
        application.add_requested_context(PUSH_MODEL)
        application.add_requested_context(ComputedRadiographyImageStorage)
        assoc = application.associate(
            "127.0.0.1",
            self.listening.port,
            ae_title="CXR-EDGE",
            evt_handlers=[(evt.EVT_CONN_OPEN, self.listening.keep_track), *self.handlers],
        )
        asked = Dataset()
        asked.TransactionUID = transaction or generate_uid()
        if references:
            asked.ReferencedSOPSequence = [Dataset() for _ in uids]
            for item, uid in zip(asked.ReferencedSOPSequence, uids, strict=True):
                item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = ComputedRadiographyImageStorage, UID(uid)
        status, _ = assoc.send_n_action(asked, action, PUSH_MODEL, PUSH_MODEL_INSTANCE)
        return assoc, status.Status, asked.TransactionUID


@pytest.fixture
def machine(listening):
    machine = Machine(listening)
    yield machine
    machine.close()


def stored(listening, path):
    assoc = listening.associate()
    assert assoc.send_c_store(film(path, KNOWN)).Status == 0
    assoc.release()


def references(report, keyword):
    return [str(item.ReferencedSOPInstanceUID) for item in report.get(keyword, [])]


def test_the_report_comes_on_the_open_association(listening, machine, tmp_path):
    stored(listening, tmp_path / "a.dcm")
    assoc, status, transaction = machine.ask(KNOWN, UNKNOWN)
    assert status == 0
    wait_for(lambda: machine.reports, "the report")
    event_type, report, on_own_port = machine.reports[0]
    assert not on_own_port
    assert (event_type, report.TransactionUID) == (2, transaction)
    assert references(report, "ReferencedSOPSequence") == [KNOWN]
    assert references(report, "FailedSOPSequence") == [UNKNOWN]
    assert report.FailedSOPSequence[0].FailureReason == 0x0112
    assert assoc.send_c_store(film(tmp_path / "b.dcm", UNKNOWN)).Status == 0, "the association goes on"
    assoc.release()
    wait_for(lambda: not list((tmp_path / "state/commitments").iterdir()), "it is forgotten once it is answered")


def test_the_report_comes_on_a_new_association_when_the_first_is_closed(listening, machine, tmp_path):
    stored(listening, tmp_path / "a.dcm")
    machine.serve()
    assoc, status, _ = machine.ask(KNOWN)
    assert status == 0
    assoc.release()
    wait_for(lambda: machine.reports, "the report")
    event_type, report, on_own_port = machine.reports[0]
    assert on_own_port
    assert event_type == 1
    assert references(report, "ReferencedSOPSequence") == [KNOWN]
    assert "FailedSOPSequence" not in report


def test_a_machine_that_goes_on_sending_is_not_interrupted(listening, machine, tmp_path):
    path = film(tmp_path / "b.dcm", UNKNOWN)
    assoc, _, _ = machine.ask(UNKNOWN)
    until = time.monotonic() + 1.5
    while time.monotonic() < until:
        assert assoc.send_c_store(path).Status == 0
        assert not machine.reports
        time.sleep(0.05)
    wait_for(lambda: machine.reports, "the report once it is quiet")
    assoc.release()


def test_an_object_that_comes_while_the_report_is_under_way_is_neither_lost_nor_taken_for_an_answer(listening, machine, tmp_path):
    def take_after_sending(event):
        begin_store(event.assoc)
        fragment(event.assoc, HEAD, control=2)
        time.sleep(0.3)
        return machine.take(event)

    machine.handlers = [(evt.EVT_N_EVENT_REPORT, take_after_sending)]
    assoc, _, _ = machine.ask(KNOWN)
    wait_for(lambda: listening.spool.names_waiting() == {spool_name(UID_1)}, "the object is taken")
    wait_for(lambda: not list((tmp_path / "state/commitments").iterdir()), "the report is taken")
    time.sleep(1)
    assert len(machine.reports) == 1
    assert assoc.is_established
    assoc.release()


@pytest.mark.parametrize(("action", "has_references", "answer"), [(2, True, 0x0123), (1, False, 0x0115)])
def test_a_request_that_makes_no_sense_is_told_so(machine, action, has_references, answer):
    assoc, status, _ = machine.ask(KNOWN, action=action, references=has_references)
    assert status == answer
    assoc.release()


def test_a_request_that_cannot_be_kept_is_not_accepted(machine, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Requests, "keep", full)
    assoc, status, _ = machine.ask(KNOWN)
    assert status == 0x0213
    assoc.release()


@pytest.fixture
def reporter(tmp_path):
    """A reporter whose machine cannot be reached until `reachable` is set."""
    running = []
    judge = Judge(Spool(tmp_path / "state"), tmp_path / "state/outbox.db", "clinic-1")
    tries = []

    def connect(title, address):
        tries.append(time.monotonic())
        raise CxrError("it cannot be reached")

    def start():
        reporter = Reporter(Requests(tmp_path / "commitments"), judge, connect, (0.2, 0.8))
        thread = threading.Thread(target=reporter.run)
        thread.start()
        running.append((reporter, thread))
        return reporter

    start.tries = tries
    yield start
    for reporter, thread in running:
        reporter.end()
        thread.join()


def noted(home):
    """What the one file of the folder says. `Requests.waiting` is for the process itself: it removes what is half written."""
    (path,) = (path for path in (home / "commitments").iterdir() if path.suffix != ".part")
    return msgspec.json.decode(path.read_bytes(), type=Request)


def test_it_is_tried_again_with_growing_pauses_and_after_a_restart(reporter, tmp_path, caplog):
    Requests(tmp_path / "commitments").keep(request(KNOWN))
    first = reporter()
    wait_for(lambda: len(reporter.tries) == 4, "four tries")
    pauses = [after - before for before, after in zip(reporter.tries, reporter.tries[1:], strict=False)]
    assert pauses[2] > pauses[0] * 1.5
    first.end()
    wait_for(lambda: noted(tmp_path).tried >= 4, "its tries are noted")
    waited = noted(tmp_path).waited_s
    assert waited > 0.5
    count = len(reporter.tries)
    reporter()
    wait_for(lambda: len(reporter.tries) > count, "it goes on after a restart")
    wait_for(lambda: noted(tmp_path).waited_s > waited, "its age goes on")
    assert KNOWN not in caplog.text


def test_after_a_day_it_is_given_up_with_a_line(reporter, tmp_path, caplog):
    Requests(tmp_path / "commitments").keep(msgspec.structs.replace(request(KNOWN), waited_s=reports._GIVE_UP_S))
    reporter()
    wait_for(lambda: not Requests(tmp_path / "commitments").waiting(), "it is given up")
    assert "XRAY1 is not told about its storage commitment any more: it cannot be reached" in caplog.text


def test_without_a_port_it_says_what_to_write(tmp_path, caplog):
    listening = Listening(tmp_path / "state", silent_s=5.0)
    listening.machine_port = 0
    try:
        assoc, status, _ = Machine(listening).ask(KNOWN)
        assert status == 0
        assoc.release()
        wait_for(lambda: "write XRAY1@127.0.0.1:PORT" in caplog.text, "it says so")
    finally:
        listening.close()
