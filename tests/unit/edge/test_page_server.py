"""The page at real sockets: who may connect, for how long, and by which name."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import socket
import time

import pytest

from edge.page import connections
from edge.page.film import Films
from edge.page.hosts import is_own, own_names
from edge.page.session import Sessions
from tests.golden.examples import EXAMPLES
from tests.support.page import PIN, served_page
from tests.support.processes import wait_for


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    with served_page(tmp_path_factory.mktemp("page")) as served:
        yield served


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(connections, "REQUEST_S", 1.0)
    monkeypatch.setattr(connections, "STALLED_S", 3.0)
    monkeypatch.setattr(connections, "_LOOK_S", 0.05)


@pytest.fixture
def connect(page):
    with contextlib.ExitStack() as opened:

        def one(source="127.0.0.1"):
            made = socket.create_connection(("127.0.0.1", page.port), timeout=20, source_address=(source, 0))
            return opened.enter_context(contextlib.closing(made))

        yield one


def is_closed(connection):
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True
    finally:
        connection.settimeout(20)


def open_ones(held):
    return sum(not is_closed(one) for one in held)


def test_silent_connections_are_closed_and_keep_nobody_out(page, connect, impatient):
    held = [connect(f"127.0.0.{2 + number // connections.EACH}") for number in range(4 * connections.EACH)]
    wait_for(lambda: open_ones(held) == 0, "the silent ones are closed")
    assert page.get("/login").status == 200


def test_one_address_has_a_share_of_the_connections(page, connect):
    held = [connect("127.0.0.9") for _ in range(2 * connections.EACH)]
    wait_for(lambda: open_ones(held) <= connections.EACH, "those beyond the share are closed")
    assert open_ones(held) == connections.EACH
    assert page.get("/login").status == 200


@pytest.mark.parametrize("form", [False, True])
def test_a_request_that_trickles_in_is_given_up(page, connect, impatient, monkeypatch, form):
    monkeypatch.setattr("edge.page.forms._FORM_S", 0.5)
    one = connect()
    if form:
        host = f"127.0.0.1:{page.port}"
        one.sendall(f"POST /login HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\nContent-Length: 4000\r\n\r\n".encode())

    def trickled():
        with contextlib.suppress(ConnectionError):
            one.sendall(b"G")
            time.sleep(0.05)
            one.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                return not one.recv(65536)
            one.setblocking(True)
            return False
        return True

    wait_for(trickled, "it is closed")


def test_a_slow_film_that_keeps_coming_is_taken(page, connect, impatient):
    page.enter()
    film = b"no film, but as slow as one"
    one = connect()
    one.sendall(
        f"POST /uploads?name=a.txt HTTP/1.1\r\nHost: 127.0.0.1:{page.port}\r\nOrigin: http://127.0.0.1:{page.port}\r\n"
        f"Cookie: {page.cookie}\r\nContent-Length: {len(film)}\r\n\r\n".encode()
    )
    for byte in film:
        time.sleep(0.15)
        one.sendall(bytes([byte]))
    assert b" 201 " in one.recv(65536)


def test_a_film_that_no_longer_comes_is_given_up(page, connect, impatient):
    page.enter()
    one = connect()
    one.sendall(
        f"POST /uploads?name=a.txt HTTP/1.1\r\nHost: 127.0.0.1:{page.port}\r\nOrigin: http://127.0.0.1:{page.port}\r\n"
        f"Cookie: {page.cookie}\r\nContent-Length: 999\r\n\r\nabc".encode()
    )
    wait_for(lambda: is_closed(one), "it is closed")
    wait_for(lambda: not list((page.state / "uploads").iterdir()), "nothing of it is left")


def test_a_browser_that_reads_on_keeps_its_connection(page, impatient):
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", page.port, timeout=20)) as one:
        one.connect()
        first = one.sock
        for _ in range(12):
            one.request("GET", "/healthz")
            assert one.getresponse().read()
            time.sleep(0.25)
        assert one.sock is first


def test_a_header_does_not_name_another_address_to_wait_for(page):
    answers = [page.enter("000000", **{"X-Forwarded-For": f"10.0.0.{number}"}).text for number in range(8)]
    assert ["Too many" in text for text in answers[-2:]] == [True, True]


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


def test_many_addresses_have_one_trial_a_second_together_and_lock_nobody_out():
    clock = Clock()
    sessions = Sessions(lambda: PIN, clock)
    token = sessions.begin(PIN, "clinic")
    compared = 0
    for number in range(5000):
        clock.now += 0.02
        compared += sessions.wait_s(f"many {number}") == 0
        assert sessions.begin("000000", f"many {number}") is None
    assert 20 <= compared <= 20 + 100 + 1
    assert sessions.holds(token)
    assert sessions.wait_s("clinic") == 0
    assert sessions.begin(PIN, "clinic"), "let in before, it does not wait for others"
    assert 0 < sessions.wait_s("another of the clinic") <= 1
    clock.now += 1
    assert sessions.begin(PIN, "another of the clinic")


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("192.168.1.5:8080", True),
        ("192.168.1.5", True),
        ("192.168.1.6:8080", False),
        ("localhost:8080", True),
        ("LOCALHOST", True),
        ("xray-1:8080", True),
        ("XRAY-1.local.:8080", True),
        ("xray-1.lan", True),
        ("xray.clinic.org", True),
        ("evil.example:8080", False),
        ("xray-1.evil.example", False),
        ("local", False),
        ("", False),
        ("[", False),
        ("[::1]:8080", False),
    ],
)
def test_a_host_is_ours_by_its_address_or_its_names(monkeypatch, host, own):
    monkeypatch.setattr(socket, "gethostname", lambda: "Xray-1.lan")
    assert is_own(host, own_names("xray.clinic.org"), "192.168.1.5") is own


def test_an_ipv6_address_is_ours_however_it_is_written():
    assert is_own("[fe80::1%25eth0]:8080", frozenset(), "fe80:0::1%eth0")
    assert not is_own("[fe80::2]:8080", frozenset(), "fe80::1")


def test_a_name_of_somebody_else_is_answered_with_a_sentence(page):
    for path in ("/", "/login", "/static/page.js", "/healthz"):
        answer = page.ask("GET", path, headers={"Host": f"evil.example:{page.port}"})
        assert (answer.status, "by the address of the device" in answer.text) == (421, True)
    login = {"Host": "evil.example", "Origin": "http://evil.example"}
    answer = page.enter(PIN, **login)
    assert (answer.status, answer.cookie) == (421, "")


def test_films_that_nobody_waits_for_any_more_keep_nobody_waiting(page, connect, monkeypatch):
    intake = "0a" * 16
    (page.state / "done" / f"{intake}.dcm").touch()
    film = f"/studies/{page.record(EXAMPLES['result'], intake)}/film.png"
    page.enter()
    begun = []

    async def drawn(self, path, heat):
        begun.append(path)
        await asyncio.sleep(0.5)
        return b"a picture"

    monkeypatch.setattr(Films, "_drawn", drawn)
    monkeypatch.setattr(Films, "_keep", lambda *_: None)
    taps = [connect() for _ in range(8)]
    for tap in taps:
        tap.sendall(f"GET {film} HTTP/1.1\r\nHost: 127.0.0.1:{page.port}\r\nCookie: {page.cookie}\r\n\r\n".encode())
    wait_for(lambda: begun, "the first is being drawn")
    for tap in taps:
        tap.close()
    page.get(film)
    assert len(begun) == 2, "the first, and the one that somebody waits for"
