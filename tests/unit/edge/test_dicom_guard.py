"""What a peer may not do to the listener, with raw bytes on a real socket; and that others are served meanwhile."""

import contextlib
import gc
import random
import resource
import socket
import struct
import threading
import time

import pytest
from pydicom.uid import UID, ComputedRadiographyImageStorage, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu_primitives import P_DATA

from edge.config import Dicom
from edge.dicom.arrival import CANNOT_UNDERSTAND, OUT_OF_RESOURCES, PROCESSING_FAILURE, Admission, Arrival
from edge.dicom.commitment import Judge, Requests
from edge.dicom.listener import Listener, limits_of
from edge.dicom.peers import parse_peers
from edge.dicom.reports import Reporter, connector
from edge.errors import CxrError
from edge.intake.spool import Spool
from tests.support.dicom import dcmtk, film
from tests.support.processes import free_port, wait_for

VERIFICATION = "1.2.840.10008.1.1"
UID_1 = "1.2.826.0.1.99"
HEAD = b"\x08\x00\x18\x00UI" + bytes([len(UID_1), 0]) + UID_1.encode()
"""A data set of nothing but its SOP Instance UID."""
VERIFICATION_CONTEXT, STORE_CONTEXT = 1, 3


service_hangs = threading.Event()


class Listening:
    """A listener in threads of this process."""

    def __init__(self, home, has_room=lambda: True, **settings):
        self.port = free_port()
        self.spool = Spool(home)
        self.stop = threading.Event()
        self.opened = []
        values = {"allow": ("XRAY1@127.0.0.1",), "silent_s": 1.0, "max_pdu": 16384, "max_associations": 3} | settings
        self.settings = Dicom(port=self.port, **values)
        peers = parse_peers(self.settings.allow)
        limits = limits_of(self.settings, peers)
        judge = Judge(self.spool, home / "outbox.db", "clinic-1")
        reporter = Reporter(Requests(home / "commitments"), judge, connector(self.settings, peers, limits))
        self.progress = []
        admission = Admission(self.spool, 200_000, has_room)
        self.listener = Listener(self.settings, peers, limits, admission, reporter, lambda: self.progress.append(time.monotonic()))
        self.thread = threading.Thread(target=self.listener.run, args=(self.stop,))
        self.thread.start()

    def close(self):
        self.stop.set()
        self.thread.join(15)
        assert not self.thread.is_alive()
        for connection in self.opened:
            connection.close()

    def keep_track(self, event):
        """pynetdicom as a sender leaves sockets open that were cut off."""
        self.opened.append(event.assoc.dul.socket.socket)

    def connect(self):
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        self.address = connection.getsockname()
        return connection

    def associate(self, title="XRAY1", called="CXR-EDGE", syntax=ExplicitVRLittleEndian, handlers=(), source="127.0.0.1"):
        application = AE(title)
        application.acse_timeout = application.dimse_timeout = application.network_timeout = 10
        application.add_requested_context(VERIFICATION)
        application.add_requested_context(ComputedRadiographyImageStorage, syntax)
        return application.associate(
            "127.0.0.1",
            self.port,
            ae_title=called,
            evt_handlers=[(evt.EVT_CONN_OPEN, self.keep_track), *handlers],
            bind_address=(source, 0),
        )

    def echoes(self):
        """Whether a good peer is served now."""
        assoc = self.associate()
        try:
            return assoc.is_established and assoc.send_c_echo().get("Status") == 0
        finally:
            assoc.release()

    def makes_progress(self, within_s=1.5):
        """Whether it says so after now."""
        before = len(self.progress)
        time.sleep(within_s)
        return len(self.progress) > before + 1


@pytest.fixture
def listen(tmp_path):
    running = []

    def start(**options):
        running.append(Listening(tmp_path / f"{len(running)}", **options))
        return running[-1]

    yield start
    for listening in running:
        listening.close()


def closed_by_peer(connection, within_s=8.0):
    """Whether the peer closes within a time, whatever it says before."""
    connection.settimeout(within_s)
    with contextlib.suppress(ConnectionResetError):
        while connection.recv(4096):
            pass
    return True


def pdu(kind, body, length=None):
    return struct.pack(">BBL", kind, 0, len(body) if length is None else length) + body


@pytest.mark.parametrize("kind", [0x01, 0x04, 0x07])
def test_a_pdu_of_four_gigabytes_before_an_association_is_refused_at_its_header(listen, kind, caplog):
    listening = listen()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with listening.connect() as connection:
        connection.sendall(pdu(kind, b"", 0xFFFFFFFF))
        with contextlib.suppress(OSError):
            for _ in range(400):
                connection.sendall(bytes(1 << 18))
        assert listening.echoes()
        assert closed_by_peer(connection)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30 * 1024, "100 MB were sent"
    assert "4294967295 bytes" in caplog.text or "no DICOM" in caplog.text


@pytest.mark.parametrize(
    "junk", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", bytes(100), b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"]
)
def test_what_is_no_dicom_is_cut_off(listen, junk, caplog):
    listening = listen()
    with listening.connect() as connection:
        connection.sendall(junk)
        assert closed_by_peer(connection, 3)
    assert "no DICOM" in caplog.text
    assert listening.echoes()


def test_an_association_request_of_noise_is_cut_off(listen):
    listening = listen()
    for body in (bytes(500), b"\0\1" + b"\xff" * 400, b"\0\1\0\0" + b"A" * 64 + b"\x10\0\xff\xff"):
        with listening.connect() as connection:
            connection.sendall(pdu(0x01, body))
            time.sleep(0.1)
    assert listening.echoes()


@pytest.fixture
def no_collector():
    """What is closed is closed by the code, not because the collector found it."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def held_open(port):
    """How many sockets of this process have that local port."""
    sockets = [thing for thing in gc.get_objects() if isinstance(thing, socket.socket)]
    return sum(held.fileno() >= 0 and held.getsockname()[1] == port for held in sockets)


def test_damaged_streams_end_their_connection_and_nothing_else(listen, tmp_path, no_collector):
    listening = listen(max_associations=10)
    sent = []
    assoc = listening.associate(handlers=[(evt.EVT_DATA_SENT, lambda event: sent.append(event.data))])
    assert assoc.send_c_store(film(tmp_path / "a.dcm", UID_1)).Status == 0
    assoc.release()
    (intake,) = listening.spool.pending()
    whole, rng = b"".join(sent), random.Random(5)
    for _ in range(60):
        damaged = bytearray(whole)
        for _ in range(rng.choice((1, 3, 30))):
            damaged[rng.randrange(len(sent[0]) + 300 if rng.random() < 0.8 else len(whole))] = rng.randrange(256)
        with listening.connect() as connection, contextlib.suppress(OSError):
            connection.sendall(damaged[: rng.randrange(len(whole))] if rng.random() < 0.3 else damaged)
            connection.settimeout(0.05)
            connection.recv(4096)
    wait_for(lambda: not list(listening.spool.arriving.iterdir()), "no part is left", 20)
    wait_for(lambda: dcmtk("echoscu", listening.port).returncode == 0, "it serves others")
    assert intake in listening.spool.pending()
    wait_for(lambda: held_open(listening.port) == 1, "all connections are closed, and it still listens", 8)


def test_after_association_a_pdu_larger_than_negotiated_is_refused(listen, caplog):
    listening = listen()
    assoc = listening.associate()
    assert assoc.acceptor.maximum_length == 16384
    assoc.dul.socket.socket.sendall(pdu(0x04, b"", 16385))
    wait_for(lambda: not assoc.is_established, "it is cut off")
    assert "it announced a PDU of 16385 bytes, and 16384 are allowed" in caplog.text
    assert listening.echoes()


def test_a_peer_that_drips_is_cut_off_and_holds_nobody_up(listen, caplog):
    listening = listen()
    with listening.connect() as connection:
        began = time.monotonic()
        with contextlib.suppress(OSError):
            for byte in pdu(0x01, bytes(300)):
                connection.sendall(bytes([byte]))
                if time.monotonic() - began < 0.7:
                    assert listening.echoes()
                time.sleep(0.1)
        assert closed_by_peer(connection)
        assert time.monotonic() - began < 20, "all its bytes would take 30 s"
    assert "longer than 1 s for one PDU" in caplog.text


def test_a_peer_that_says_nothing_is_cut_off(listen):
    listening = listen()
    with listening.connect() as connection:
        assert closed_by_peer(connection, 12)
    assoc = listening.associate()
    wait_for(lambda: not assoc.is_established, "an idle association ends too", 12)


def test_strangers_share_a_few_connections(listen):
    listening = listen(allow=("XRAY1@127.0.0.9",), silent_s=5.0)
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(listening.connect()) for _ in range(10)]
        time.sleep(0.3)
        open_ones = []
        for connection in held:
            connection.settimeout(0.05)
            with contextlib.suppress(ConnectionResetError):
                try:
                    connection.recv(1)
                except TimeoutError:
                    open_ones.append(connection)
        assert len(open_ones) == 4
        machine = stack.enter_context(socket.create_connection(("127.0.0.1", listening.port), 5, ("127.0.0.9", 0)))
        machine.settimeout(0.3)
        with pytest.raises(TimeoutError):
            machine.recv(1)  # it is not closed


def test_associations_are_limited_and_freed(listen, caplog):
    listening = listen()
    held = [listening.associate() for _ in range(3)]
    assert all(assoc.is_established for assoc in held)
    assert listening.associate().is_rejected
    assert "as many associations as allowed" in caplog.text
    held[0].release()
    wait_for(listening.echoes, "a slot is free again")
    for assoc in held[1:]:
        assoc.release()


def test_one_machine_leaves_room_for_the_others(listen, caplog):
    listening = listen(allow=("XRAY1@127.0.0.1", "XRAY2@127.0.0.9"))
    held = [listening.associate() for _ in range(2)]
    assert listening.associate().is_rejected
    assert "as many associations as one machine may" in caplog.text
    other = listening.associate("XRAY2", source="127.0.0.9")
    assert other.is_established
    for assoc in [*held, other]:
        assoc.release()


def test_nor_does_one_machine_fill_the_room_with_connections_that_say_nothing(listen):
    listening = listen(allow=("XRAY1@127.0.0.1", "XRAY2@127.0.0.9"), silent_s=5.0)
    with contextlib.ExitStack() as stack:
        for _ in range(8):
            stack.enter_context(listening.connect())
        time.sleep(0.3)
        other = listening.associate("XRAY2", source="127.0.0.9")
        assert other.is_established
        other.release()


def test_a_machine_is_the_same_one_when_the_listener_takes_both_kinds_of_addresses(listen):
    listening = listen(address="::", silent_s=5.0)
    with contextlib.ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(socket.create_connection(("127.0.0.1", listening.port), 5, ("127.0.0.9", 0)))
        time.sleep(0.3)
        assert listening.echoes()


@pytest.mark.parametrize(
    ("title", "called", "says"),
    [("XRAY2", "CXR-EDGE", "an association of XRAY2 at 127.0.0.1 was rejected"), ("XRAY1", "OTHER", "it asked for OTHER")],
)
def test_who_is_not_allowed_is_rejected_and_named(listen, title, called, says, caplog):
    assert listen().associate(title, called).is_rejected
    assert says in caplog.text


def test_the_right_title_at_another_address_is_rejected(listen):
    assert listen(allow=("XRAY1@127.0.0.9",)).associate().is_rejected


def test_the_deflated_syntax_is_not_accepted(listen):
    assoc = listen().associate(syntax=DeflatedExplicitVRLittleEndian)
    assert [context.abstract_syntax for context in assoc.accepted_contexts] == [VERIFICATION]
    assoc.release()


def begin_store(assoc, uid=UID_1):
    """Send a C-STORE command; pynetdicom as a sender would check it and send all the rest."""
    command = C_STORE()
    command.MessageID, command.Priority = 7, 2
    command.AffectedSOPClassUID = ComputedRadiographyImageStorage
    command.AffectedSOPInstanceUID = uid and UID(uid)
    message = C_STORE_RQ()
    message.primitive_to_message(command)
    message.command_set.CommandDataSetType = 1
    message.data_set = None
    for pdata in message.encode_msg(STORE_CONTEXT, 16384):
        assoc.dul.send_pdu(pdata)


def fragment(assoc, content, *, control=0, context=STORE_CONTEXT):
    pdata = P_DATA()
    pdata.presentation_data_value_list.append((context, bytes([control]) + content))
    assoc.dul.send_pdu(pdata)


def store(assoc, uid, data):
    begin_store(assoc, uid)
    for start in range(0, len(data), 4000):
        fragment(assoc, data[start : start + 4000], control=2 * (start + 4000 >= len(data)))


def answer(assoc):
    _, message = assoc.dimse.get_msg(block=True)
    return message and message.Status


def paused(assoc):
    """Keep pynetdicom's own thread from taking the answers."""
    assoc._reactor_checkpoint.clear()
    wait_for(lambda: assoc._is_paused, "it waits")
    return assoc


def test_an_object_without_or_with_another_uid_is_answered_with_cannot_understand(listen):
    listening = listen()
    assoc = paused(listening.associate())
    for uid, data in ((None, b"x" * 9000), (UID_1, b"\x08\x00\x18\x00UI\x06\x001.2.3\0")):
        store(assoc, uid, data)
        assert answer(assoc) == CANNOT_UNDERSTAND
    store(assoc, UID_1, HEAD)
    assert answer(assoc) == 0, "the association goes on"
    assoc.abort()


def test_what_is_too_large_or_finds_no_room_is_answered_with_out_of_resources(listen):
    room = [True]
    listening = listen(has_room=lambda: room[0])
    assoc = paused(listening.associate())
    store(assoc, UID_1, HEAD + bytes(200_000))
    assert answer(assoc) == OUT_OF_RESOURCES
    room[0] = False
    store(assoc, UID_1, HEAD)
    assert answer(assoc) == OUT_OF_RESOURCES
    room[0] = True
    store(assoc, UID_1, HEAD)
    assert answer(assoc) == 0
    assert len(listening.spool.pending()) == 1
    assoc.abort()


def test_a_fault_in_the_handler_ends_neither_the_association_nor_the_listener(listen, monkeypatch, tmp_path, caplog):
    listening = listen()
    assoc = listening.associate()

    def fail(self):
        raise RuntimeError("Lovelace")

    monkeypatch.setattr(Arrival, "finish", fail)
    path = film(tmp_path / "a.dcm", UID_1)
    assert assoc.send_c_store(path).Status == PROCESSING_FAILURE
    monkeypatch.undo()
    assert assoc.send_c_store(path).Status == 0
    assoc.release()
    assert "could not be taken in (RuntimeError)" in caplog.text
    assert "Lovelace" not in caplog.text


def test_an_object_that_breaks_off_leaves_nothing(listen):
    listening = listen()
    assoc = listening.associate()
    store(assoc, UID_1, HEAD + bytes(100_000))
    store(assoc, UID_1, HEAD + bytes(100_000))
    begin_store(assoc)
    fragment(assoc, HEAD)
    wait_for(lambda: list(listening.spool.arriving.iterdir()), "it has begun")
    time.sleep(0.2)
    assoc.dul.socket.socket.shutdown(socket.SHUT_RDWR)
    wait_for(lambda: not list(listening.spool.arriving.iterdir()), "the part is removed")
    assert listening.echoes()


def test_commands_in_the_place_of_an_object_end_the_association_and_leave_nothing(listen, caplog):
    listening = listen()
    assoc = listening.associate()
    for _ in range(20):
        begin_store(assoc)
    wait_for(lambda: not assoc.is_established, "it is cut off")
    assert "a command in the place of an object" in caplog.text
    wait_for(lambda: not list(listening.spool.arriving.iterdir()), "the part is removed")
    assert listening.echoes()


def test_an_object_that_takes_too_long_is_cut_off(listen, caplog):
    listening = listen(object_s=0.5)
    assoc = listening.associate()
    begin_store(assoc)
    for _ in range(30):
        fragment(assoc, b"some")
        time.sleep(0.1)
        if not assoc.is_established:
            break
    assert not assoc.is_established
    assert "longer than 0.5 s for one message" in caplog.text
    assert not list(listening.spool.arriving.iterdir())


def test_a_command_without_end_is_cut_off(listen, caplog):
    listening = listen()
    assoc = listening.associate()
    for _ in range(100):
        fragment(assoc, bytes(16000), control=1, context=VERIFICATION_CONTEXT)
    wait_for(lambda: not assoc.is_established, "it is cut off")
    assert "a command of more than" in caplog.text


def test_who_does_not_wait_for_answers_is_cut_off(listen, monkeypatch, caplog):
    listening = listen()
    taken = threading.Event()
    finish = Arrival.finish
    monkeypatch.setattr(Arrival, "finish", lambda self: (taken.wait(10), finish(self))[1])
    assoc = listening.associate()
    for _ in range(12):
        store(assoc, UID_1, HEAD)
    wait_for(lambda: not assoc.is_established, "it is cut off")
    taken.set()
    assert "does not wait for answers" in caplog.text


def test_the_end_waits_for_what_is_being_received_and_refuses_what_is_new(listen, caplog):
    listening = listen(silent_s=5.0)
    assoc = paused(listening.associate())
    begin_store(assoc)
    fragment(assoc, HEAD)
    wait_for(lambda: list(listening.spool.arriving.iterdir()), "it has begun")
    listening.stop.set()
    wait_for(lambda: not listens_on(listening.port), "new connections are refused")
    assert listening.thread.is_alive()
    fragment(assoc, bytes(100), control=2)
    assert answer(assoc) == 0
    listening.thread.join(10)
    assert not listening.thread.is_alive()
    assert len(listening.spool.pending()) == 1
    assoc.abort()


def listens_on(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def test_an_address_of_another_machine_or_a_port_in_use_is_told(listen, tmp_path):
    with pytest.raises(CxrError, match="cannot be listened on"):
        Listening(tmp_path / "a", address="192.0.2.1")
    busy = listen()
    limits = limits_of(busy.settings, ())
    with pytest.raises(CxrError, match="in use"):
        Listener(busy.settings, (), limits, Admission(busy.spool, 1, lambda: True), None)


def test_a_listener_makes_progress_while_all_of_it_works_and_while_a_machine_is_silent(listen):
    service = listen(silent_s=5.0)
    with service.connect():
        assert service.makes_progress()


@pytest.mark.parametrize("part", ["accepting", "reporting", "disk", "locked", "storing"])
def test_a_listener_of_which_a_part_hangs_makes_no_progress(listen, tmp_path, monkeypatch, part):
    go_on = threading.Event()
    hang = lambda *_: go_on.wait(30)  # noqa: E731
    service = listen(silent_s=20.0, has_room=lambda: part != "disk" or not service_hangs.is_set() or hang())
    monkeypatch.setattr("edge.dicom.listener._STORE_S", 0.3)
    service_hangs.set()
    try:
        if part == "accepting":
            monkeypatch.setattr(service.listener._server, "verify_request", hang)
            service.opened.append(service.connect())
        elif part == "reporting":
            monkeypatch.setattr(service.listener._reporter, "_attend", hang)
            service.listener._reporter._waiting["x"] = type("Due", (), {"due": 0.0})()
        elif part == "locked":
            service.listener._lock.acquire()
        elif part == "storing":
            real = service.spool.admit_part
            monkeypatch.setattr(service.spool, "admit_part", lambda *given: hang() and real(*given))
            sent = (film(tmp_path / "a.dcm", UID_1),)
            threading.Thread(target=service.associate().send_c_store, args=sent, daemon=True).start()
        time.sleep(1.0)
        assert not service.makes_progress()
    finally:
        service_hangs.clear()
        go_on.set()
        service.listener._reporter._waiting.clear()
        if part == "locked":
            service.listener._lock.release()
    wait_for(service.makes_progress, "it works again")
