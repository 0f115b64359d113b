"""`/v1/sync` over real sockets: who may deliver, what is taken, what is refused, and that nobody sees a stack trace."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import http.client
import os
import resource
import select
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from broker.aggregate import no_commands
from broker.errors import AuthorityError, StartError, StoreRefused, StoreUnavailable
from broker.ingest import Decision, Greeted, Replied
from broker.settle import Settler
from broker.store import Batch, MemoryStore
from broker.sync import app as sync_app
from broker.sync import gate
from broker.sync import server as sync_server
from broker.sync.app import create_app
from broker.sync.bucket import Buckets
from broker.sync.server import Listen, SyncServer, common_name
from edge.contract import codec
from edge.contract.frames import MAX_BODY, Frame, pack, unpack
from edge.contract.messages import AnyMessage, Command, Quarantined, Receipt, Reply
from edge.contract.topics import Channel
from tests.support import messages
from tests.support.authority import Authority, Identity
from tests.support.messages import EPOCH, OTHER_EPOCH
from tests.support.processes import free_port, wait_for


class Moody(MemoryStore):
    """A store whose next commits raise what is in `moods`."""

    def __init__(self) -> None:
        super().__init__()
        self.moods: list[Exception] = []

    def commit(self, batch: Batch) -> None:
        if self.moods:
            raise self.moods.pop(0)
        super().commit(batch)


@dataclass
class Running:
    """A server in this process, its store, and a client that can show any certificate."""

    authority: Authority
    port: int
    store: Moody = field(default_factory=Moody)

    def __post_init__(self) -> None:
        self.settler = Settler(self.store)

    def context(self, identity: Identity | None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.authority.ca))
        if identity is not None:
            context.load_cert_chain(identity.cert, identity.key)
        return context

    def post(self, body: bytes, name: str = "dev-a", path: str = "/v1/sync", method: str = "POST") -> tuple[int, bytes, str]:
        return self.ask(body, self.authority.client(name), path, method)

    def ask(self, body: bytes, identity: Identity | None, path: str, method: str) -> tuple[int, bytes, str]:
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=10, context=self.context(identity))
        with contextlib.closing(connection):
            connection.request(method, path, body)
            with connection.getresponse() as response:
                return response.status, response.read(), response.getheader("Retry-After", "")

    def deliver(self, *given: AnyMessage | bytes, name: str = "dev-a") -> list[Receipt]:
        status, content, _ = self.post(batch(*given, device=name), name)
        assert status == 200, content
        return [codec.decode_receipt(frame.payload) for frame in unpack(content)]


def batch(*given: AnyMessage | bytes, device: str = "dev-a") -> bytes:
    results = [Frame(Channel.RESULT, one if isinstance(one, bytes) else codec.encode(one)) for one in given]
    return pack([Frame(Channel.HELLO, codec.encode(messages.hello(device))), *results])


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@contextlib.contextmanager
def serving(
    authority: Authority,
    answers: Callable[[list[Decision]], list[Command]] = no_commands,
    revoked: Callable[[str], bool] = sync_app.nobody_is,
) -> Iterator[Running]:
    running = Running(authority, free_port())
    identity = authority.server("centre")
    listen = Listen.parse(f"https://127.0.0.1:{running.port}", authority.ca, identity.cert, identity.key)
    server = SyncServer(create_app(running.settler, Buckets(size=20.0, per_s=0.001), answers, revoked), listen)
    server.start()
    try:
        yield running
    finally:
        server.close()


@pytest.fixture
def centre(authority: Authority) -> Iterator[Running]:
    with serving(authority) as running:
        yield running


def test_what_is_delivered_is_committed_and_receipted(centre: Running) -> None:
    receipts = centre.deliver(*(messages.result(seq=seq) for seq in (1, 2, 4)))
    assert receipts == [Receipt(device="dev-a", epoch=EPOCH, through=2, plus=[(4, 4)], answers="ab" * 8)]
    assert sorted(seq for _, _, seq in centre.store.outcomes) == [1, 2, 4]
    assert centre.deliver() == receipts, "a hello alone asks what the centre holds"
    assert centre.deliver(messages.result(seq=2), messages.result(seq=3))[0].through == 4
    assert len(centre.store.outcomes) == 4


def test_it_is_judged_as_what_comes_by_mqtt(centre: Running) -> None:
    good = codec.encode(messages.result(seq=2))
    receipts = centre.deliver(
        b"\xff not JSON",
        good.replace(b'"seq":2', b'"seq":5').replace(b'"schema":1', b'"schema":7'),
        codec.encode(messages.result(seq=6)) + b" " * 9000,
        messages.result("dev-b", 1),
        messages.result(seq=2),
        messages.result(seq=2, label="normal"),
        messages.result(seq=1),
    )
    reasons = sorted(odd.reason for odd in centre.store.rejected)
    assert reasons == ["conflict", "identity_mismatch", "not_json", "too_large", "unknown_schema"]
    assert {odd.device for odd in centre.store.rejected} == {"dev-a"}
    quarantined = [one for receipt in receipts for one in receipt.quarantined]
    assert set(quarantined) == {Quarantined(5, "unknown_schema"), Quarantined(6, "too_large")}
    assert sorted(centre.store.outcomes) == [("dev-a", EPOCH, 1), ("dev-a", EPOCH, 2)]


def test_the_name_in_the_certificate_is_the_name_in_the_messages(centre: Running, caplog: pytest.LogCaptureFixture) -> None:
    status, content, _ = centre.post(batch(messages.result("dev-b", 1), device="dev-b"), "dev-a")
    assert (status, b"not the name of the device" in content) == (403, True)
    assert centre.store.outcomes == {}
    assert centre.store.rejected == []
    assert "certificate is that of 'dev-a'" in caplog.text


def test_without_a_device_certificate_of_the_authority_nobody_is_heard(centre: Running, tmp_path: Path) -> None:
    stranger = Authority(tmp_path / "other", "another authority").client("dev-a")
    server = centre.authority.server("dev-a")  # of the right authority, and no client
    for identity in (None, stranger, server):
        with pytest.raises(OSError):  # noqa: PT011  # which error depends on who is quicker
            centre.ask(batch(messages.result()), identity, "/v1/sync", "POST")
    assert centre.store.outcomes == {}
    assert centre.post(batch(messages.result()))[0] == 200


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b"", 400, b"truncated"),
        (b"nothing of ours", 400, b"not_gzip"),
        (os.urandom(MAX_BODY + 1), 413, b"bytes"),
        (gzip.compress(b"\0" * 50_000_000), 400, b"bad_frame"),
        (gzip.compress((b"result 8000\n" + b" " * 8000 + b"\n") * 2000), 400, b"too_large"),
        (pack([]), 400, b"no hello"),
        (pack([Frame(Channel.RESULT, codec.encode(messages.result()))]), 400, b"no hello"),
        (pack([Frame(Channel.HELLO, b"{}")]), 400, b"invalid"),
        (batch()[:-9], 400, b"truncated"),
        (pack([Frame(Channel.HELLO, codec.encode(messages.hello())), Frame(Channel.RECEIPT, b"{}")]), 400, b"No receipt"),
    ],
)
def test_what_is_no_batch_is_refused_in_a_sentence(centre: Running, body: bytes, status: int, says: bytes) -> None:
    answer = centre.post(body)
    assert (answer[0], says in answer[1], b"Traceback" in answer[1]) == (status, True, False), answer
    assert centre.store.outcomes == {}
    assert centre.store.rejected == []


def test_a_device_greets_with_each_of_its_epochs(centre: Running) -> None:
    """After a salvage it asks for the closed ones too."""
    hellos = [messages.hello(epoch=epoch, last=2, nonce=digit * 16) for epoch, digit in ((EPOCH, "a"), (OTHER_EPOCH, "b"))]
    outcomes = [messages.result(seq=1), messages.result(seq=2, epoch=OTHER_EPOCH)]
    frames = [Frame(Channel.HELLO, codec.encode(one)) for one in hellos]
    status, content, _ = centre.post(pack([*frames, *(Frame(Channel.RESULT, codec.encode(one)) for one in outcomes)]))
    assert status == 200, content
    assert [codec.decode_receipt(frame.payload) for frame in unpack(content)] == [
        Receipt(device="dev-a", epoch=EPOCH, through=1, answers="a" * 16),
        Receipt(device="dev-a", epoch=OTHER_EPOCH, through=0, plus=[(2, 2)], answers="b" * 16),
    ]


def test_other_paths_and_methods_are_not_there(centre: Running) -> None:
    assert centre.post(b"", path="/")[0] == 404
    assert centre.post(b"", method="GET")[0] == 405


def test_a_database_that_is_away_is_told_and_the_same_batch_is_taken_later(centre: Running) -> None:
    centre.store.moods = [StoreUnavailable("gone")]
    body = batch(messages.result())
    status, content, again = centre.post(body)
    assert (status, content, again) == (503, b"The centre's database takes nothing just now.\n", "10")
    assert centre.deliver()[0].through == 0, "what was not committed is in no receipt"
    assert centre.post(body)[0] == 200
    assert len(centre.store.outcomes) == 1


def test_an_outcome_that_the_database_never_takes_holds_up_no_other(centre: Running) -> None:
    centre.store.moods = [StoreRefused("the whole"), StoreRefused("one of it")]  # then the hello itself, alone
    receipts = centre.deliver(messages.result(seq=1), messages.result(seq=2))
    assert receipts[-1].through == 2


def test_a_defect_of_this_software_is_no_answer_for_a_stranger(centre: Running) -> None:
    centre.store.moods = [RuntimeError("secret of the inside")]
    status, content, _ = centre.post(batch(messages.result()))
    assert (status, content) == (500, b"Internal Server Error")
    assert centre.deliver()[0].through == 0, "what was not committed is in no receipt"
    assert centre.post(batch(messages.result()))[0] == 200


def test_a_busy_database_keeps_nobody_waiting_for_long(centre: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sync_app, "_TURN_WITHIN_S", 0.1)
    with centre.settler._turn:
        assert centre.post(batch(messages.result()))[0] == 503
    assert centre.post(batch(messages.result()))[0] == 200


def test_a_device_that_asks_without_end_is_slowed_down_alone(centre: Running) -> None:
    answers = [centre.post(batch())[0] for _ in range(22)]
    assert answers == [200] * 20 + [429] * 2
    assert int(centre.post(batch())[2]) > 1
    assert centre.post(batch(device="dev-b"), "dev-b")[0] == 200


def test_a_body_that_never_comes_is_not_waited_for(centre: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sync_app, "_BODY_WITHIN_S", 0.2)
    with (
        socket.create_connection(("127.0.0.1", centre.port)) as plain,
        centre.context(centre.authority.client("dev-a")).wrap_socket(plain, server_hostname="127.0.0.1") as tls,
    ):
        tls.settimeout(10)
        tls.sendall(b"POST /v1/sync HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc")
        assert tls.recv(65536).startswith(b"HTTP/1.1 408")


def test_a_connection_that_does_nothing_is_ended(centre: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sync_server, "_CONNECTION_S", 0.3)
    with (
        socket.create_connection(("127.0.0.1", centre.port)) as plain,
        centre.context(centre.authority.client("dev-a")).wrap_socket(
            plain, server_hostname="127.0.0.1", suppress_ragged_eofs=True
        ) as tls,
    ):
        tls.settimeout(10)
        tls.sendall(b"POST /v1/sync HT")
        with contextlib.suppress(ConnectionResetError):
            assert tls.recv(100) == b""


def silent(centre: Running, count: int, address: str = "127.0.0.1") -> list[socket.socket]:
    """Connections that never begin a handshake."""
    return [socket.create_connection(("127.0.0.1", centre.port), 5, (address, 0)) for _ in range(count)]


def still_open(connections: list[socket.socket]) -> int:
    ended, _, _ = select.select(connections, [], [], 0)
    return len(connections) - len(ended)


@contextlib.contextmanager
def closing_all(connections: list[socket.socket]) -> Iterator[list[socket.socket]]:
    try:
        yield connections
    finally:
        for one in connections:
            one.close()


def test_who_begins_no_handshake_is_ended(
    centre: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(gate, "HANDSHAKE_S", 0.3)
    with closing_all(silent(centre, 3)) as connections:
        connections[1].sendall(b"\x16\x03")
        wait_for(lambda: still_open(connections) == 0, "all are ended")
    assert centre.post(batch(messages.result()))[0] == 200
    assert caplog.records == []


def test_what_is_no_tls_is_ended_and_fills_no_log(centre: Running, caplog: pytest.LogCaptureFixture) -> None:
    with closing_all(silent(centre, 3)) as connections:
        for one, spoken in zip(
            connections, (b"GET / HTTP/1.1\r\n\r\n", b"\0" * 500, b"\x16\x03\x01\xff\xff" + b"x" * 70_000), strict=True
        ):
            with contextlib.suppress(OSError):
                one.sendall(spoken)
        wait_for(lambda: still_open(connections) == 0, "all are ended")
    assert centre.post(batch(messages.result()))[0] == 200
    assert caplog.records == []


def test_connections_without_a_handshake_are_bounded_and_so_are_those_of_one_address(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sync_server, "_SHAKING", 16)
    with (
        serving(authority) as centre,
        closing_all(silent(centre, 1, "127.0.0.9")) as first,
        closing_all(silent(centre, 40)) as crowd,
    ):
        wait_for(lambda: still_open(crowd) == 4, "the oldest of the crowd are ended")
        assert still_open(crowd[-4:]) == 4
        assert still_open(first) == 1, "who is no crowd keeps the place"
        others = [one for number in range(2, 8) for one in silent(centre, 4, f"127.0.0.{number}")]
        with closing_all(others):
            wait_for(lambda: still_open(crowd) + still_open(others) == 15, "all together are bounded")
            assert still_open(first) == 1
            assert centre.post(batch(messages.result()))[0] == 200
    assert len(caplog.records) == 1
    assert "the oldest are ended" in caplog.text


def test_devices_get_through_while_a_flood_goes_on(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sync_server, "_SHAKING", 32)
    over = threading.Event()

    def flood(address: str) -> None:
        held: list[socket.socket] = []
        while not over.wait(0.01):
            with contextlib.suppress(OSError):
                held += silent(centre, 1, address)
            if len(held) > 50:
                held.pop(0).close()
        for one in held:
            one.close()

    with serving(authority) as centre:
        threads = [threading.Thread(target=flood, args=(f"127.0.0.{number}",)) for number in (2, 2, 3, 4)]
        for thread in threads:
            thread.start()
        try:
            time.sleep(0.5)
            assert [centre.post(batch(messages.result(seq=seq)))[0] for seq in range(1, 9)] == [200] * 8
        finally:
            over.set()
            for thread in threads:
                thread.join()
    assert len(centre.store.outcomes) == 8
    assert len(caplog.records) == 1, "and the log is not full of it"


def test_a_place_is_free_again_when_its_connection_ends(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[gate.Places] = []

    class Noted(gate.Places):
        def __init__(self, total: int, each: int) -> None:
            super().__init__(total, each)
            made.append(self)

    monkeypatch.setattr(sync_server, "Places", Noted)
    with serving(authority) as centre:
        with closing_all(silent(centre, 2)):
            assert centre.post(batch(messages.result()))[0] == 200
            wait_for(lambda: [len(places._held) for places in made] == [2, 0], "the silent ones have places")
            assert centre.ask(batch(), authority.client("dev-a"), "/nowhere", "POST")[0] == 404
        wait_for(lambda: [len(places._held) for places in made] == [0, 0], "all places are free")
        assert all(not places._count for places in made)


def test_one_device_does_not_take_all_places_after_the_handshake(centre: Running) -> None:
    def opened(name: str) -> socket.socket:
        plain = socket.create_connection(("127.0.0.1", centre.port), 5)
        return centre.context(centre.authority.client(name)).wrap_socket(plain, server_hostname="127.0.0.1")

    each = sync_server._OPEN // 8
    with closing_all([opened("dev-b") for _ in range(each + 10)]) as crowd:
        time.sleep(0.1)

        def count() -> int:
            for one in crowd:
                one.settimeout(0.001)
            return sum(_waits(one) for one in crowd)

        wait_for(lambda: count() == each, "the oldest are ended")
        assert centre.post(batch(messages.result()))[0] == 200


def _waits(one: socket.socket) -> bool:
    """Whether the other end keeps the connection, and says nothing."""
    try:
        one.recv(1)
    except TimeoutError:
        return True
    except OSError:
        pass
    return False


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 99)), max_size=60), st.integers(1, 8), st.integers(1, 4))
def test_places_are_bounded_and_a_newcomer_always_gets_one(steps: list[tuple[str, int]], total: int, each: int) -> None:
    places, held = gate.Places(total, each), []  # (sender, connection), the oldest first
    for sender, chance in steps:
        if chance < 30 and held:
            places.leave(held.pop(chance % len(held))[1])
            places.leave(object())
        counts = Counter(whose for whose, _ in held)
        newcomer = object()
        gone = places.enter(sender, newcomer)
        if counts[sender] >= each:
            expected = {sender}
        elif len(held) >= total:
            expected = {whose for whose, count in counts.items() if count == max(counts.values())}
        else:
            expected = set()
        assert (gone is not None) == bool(expected)
        if gone is not None:
            at = next(at for at, (_, connection) in enumerate(held) if connection is gone)
            assert held[at][0] in expected
            assert held[at][0] not in [whose for whose, _ in held[:at]], "the oldest of that sender"
            held.pop(at)
        held.append((sender, newcomer))
        assert len(held) <= total
        assert Counter(whose for whose, _ in held)[sender] <= each


@pytest.mark.parametrize(("limit", "share"), [(65_536, 1), (1024, 1), (1023, 2), (512, 2), (256, 4), (resource.RLIM_INFINITY, 1)])
def test_fewer_descriptors_mean_fewer_connections(monkeypatch: pytest.MonkeyPatch, limit: int, share: int) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (limit, limit))
    assert sync_server._share_of_descriptors() == share


def test_trouble_of_the_system_is_one_sentence_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    notices, loop = sync_server._Notices(), asyncio.new_event_loop()
    for _ in range(100):
        notices.failed(loop, {"message": "socket.accept() out of system resource", "exception": OSError(24, "Too many open files")})
    assert [record.getMessage() for record in caplog.records] == ["--sync has trouble with a connection: Too many open files."]
    notices.failed(loop, {"message": "a defect", "exception": RuntimeError("shows where")})
    assert "a defect" in caplog.text
    loop.close()


def test_two_ways_at_once_count_once(centre: Running) -> None:
    """As by MQTT in the aggregator's thread and by HTTPS at the same time: the same seqs, in the same settler."""
    outcomes = [messages.result(seq=seq) for seq in range(1, 401)]

    def by_the_other_way() -> None:
        for start in range(0, 400, 50):
            frames = [Frame(Channel.RESULT, codec.encode(one)) for one in outcomes[start : start + 50]]
            centre.settler.settle([sync_app.classify(one) for one in _inbound(frames)])

    thread = threading.Thread(target=by_the_other_way)
    thread.start()
    for start in range(300, -1, -100):
        centre.deliver(*outcomes[start : start + 100])
    thread.join()
    assert sorted(seq for _, _, seq in centre.store.outcomes) == list(range(1, 401))
    assert centre.store.rejected == []
    assert centre.deliver()[0].through == 400


def _inbound(frames: list[Frame]) -> list[sync_app.Inbound]:
    return [sync_app.Inbound("cxr/v1/dev-a/result", frame.payload, time.time_ns() // 1_000_000) for frame in frames]


def test_plain_http_is_for_this_machine_and_takes_the_name_in_the_messages() -> None:
    store, port = MemoryStore(), free_port()
    server = SyncServer(create_app(Settler(store), Buckets(size=1.0)), Listen.parse(f"http://127.0.0.1:{port}", None, None, None))
    server.start()
    try:
        answers = []
        for _ in range(2):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            with contextlib.closing(connection):
                connection.request("POST", "/v1/sync", batch(messages.result()))
                with connection.getresponse() as response:
                    answers.append(response.status)
        assert answers == [200, 429]
        assert len(store.outcomes) == 1
        with pytest.raises(StartError, match="choose another --sync"):
            SyncServer(create_app(Settler(store), Buckets()), Listen("127.0.0.1", port, None))
    finally:
        server.close()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://0.0.0.0:8444", "for this machine alone"),
        ("https://0.0.0.0:8444", "needs --sync-ca"),
        ("ftp://x", "no address to listen at"),
        ("https://", "no address to listen at"),
        ("https://x:99999", "no address to listen at"),
        ("https://x/y", "no address to listen at"),
    ],
)
def test_an_address_that_is_none(url: str, says: str) -> None:
    with pytest.raises(StartError, match=says):
        Listen.parse(url, None, None, None)


def test_certificate_files_that_are_none(tmp_path: Path, authority: Authority) -> None:
    (tmp_path / "x.pem").write_text("x")
    with pytest.raises(StartError, match="cannot be used"):
        Listen.parse("https://127.0.0.1:1", authority.ca, tmp_path / "x.pem", tmp_path / "x.pem")


def test_only_one_common_name_is_a_name() -> None:
    def named(*names: str) -> dict[str, object]:
        return {"subject": tuple((("commonName", name),) for name in names)}

    assert common_name(named("dev-a")) == "dev-a"
    assert [common_name(one) for one in (named(), named("dev-a", "dev-b"), {}, None)] == [""] * 4


@given(st.lists(st.tuples(st.sampled_from("ab"), st.floats(0.0, 5.0)), max_size=200))
def test_over_any_time_a_device_gets_its_bucket_and_its_rate(asked: list[tuple[str, float]]) -> None:
    buckets, now = Buckets(size=5.0, per_s=2.0), 100.0
    taken: dict[str, list[float]] = {"a": [], "b": []}
    for name, passed in asked:
        now += passed
        wait_s = buckets.take(name, now)
        if wait_s == 0.0:
            taken[name].append(now)
        else:
            assert 0.0 < wait_s <= 0.5 + 1e-9
            assert len(taken[name]) >= 5
    for times in taken.values():
        for first in range(len(times)):
            for last in range(first, len(times)):
                assert last - first + 1 <= 5.0 + 2.0 * (times[last] - times[first]) + 1e-6


def test_made_up_names_do_not_fill_the_memory() -> None:
    buckets = Buckets()
    for number in range(12_000):
        buckets.take(f"dev-{number}", 0.0)
    assert len(buckets._levels) == 10_000


def test_a_revoked_certificate_is_refused_at_every_request(authority: Authority, caplog: pytest.LogCaptureFixture) -> None:
    shown: list[str] = []
    gone: set[str] = set()

    def revoked(serial: str) -> bool:
        shown.append(serial)
        return serial in gone

    identity = authority.client("dev-a")
    serial = x509.load_pem_x509_certificate(identity.cert.read_bytes()).serial_number
    with serving(authority, revoked=revoked) as centre:
        assert centre.ask(batch(messages.result(seq=1)), identity, "/v1/sync", "POST")[0] == 200
        assert int(shown[-1], 16) == serial
        gone.add(shown[-1])
        status, body, _ = centre.ask(batch(messages.result(seq=2)), identity, "/v1/sync", "POST")
        assert (status, b"was revoked" in body) == (403, True)
        assert [seq for _, _, seq in centre.store.outcomes] == [1]


def test_who_is_revoked_while_its_request_is_on_its_way_delivers_nothing(authority: Authority) -> None:
    asked: list[str] = []

    def revoked(serial: str) -> bool:
        asked.append(serial)
        return len(asked) > 1  # the body is read in between

    with serving(authority, revoked=revoked) as centre:
        status, body, _ = centre.ask(batch(messages.result(seq=1)), authority.client("dev-a"), "/v1/sync", "POST")
        assert (status, b"was revoked" in body) == (403, True)
        assert not centre.store.outcomes


def test_where_revocation_cannot_be_looked_up_nobody_is_let_in(authority: Authority) -> None:
    def revoked(serial: str) -> bool:
        raise AuthorityError("the journal is gone")

    with serving(authority, revoked=revoked) as centre:
        status, body, _ = centre.post(batch(messages.result(seq=1)))
        assert (status, b"gone" in body) == (503, False)
        assert not centre.store.outcomes


def test_what_the_centre_asks_for_goes_down_with_the_receipts(authority: Authority) -> None:
    told: list[Decision] = []

    def answers(decisions: list[Decision]) -> list[Command]:
        told.extend(decisions)
        return [Command(device="dev-a", id="ab" * 8, verb="renew")]

    with serving(authority, answers) as centre:
        reply = Frame(Channel.REPLY, codec.encode(Reply(device="dev-a", id="cd" * 8, ok=True)))
        hello = Frame(Channel.HELLO, codec.encode(messages.hello()))
        status, body, _ = centre.post(pack([hello, reply]))
        assert status == 200
        down = unpack(body)
        assert [frame.channel for frame in down] == [Channel.RECEIPT, Channel.COMMAND]
        assert codec.decode_command(down[1].payload).verb == "renew"
        assert [type(one) for one in told] == [Greeted, Replied]
