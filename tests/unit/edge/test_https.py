"""One HTTPS exchange against real servers: a good one, broken ones, slow ones, and ones that must not be trusted."""

import http.server
import socket
import ssl
import threading
import time

import pytest

import edge.delivery.https
import edge.delivery.tls
from edge.config import Relay
from edge.contract.frames import MAX_BODY
from edge.delivery.https import PATH, HttpsExchange
from edge.delivery.mqtt import PahoLink
from edge.errors import CxrError
from tests.support.authority import Authority
from tests.support.raw import raw_server


def answers(content):
    def behave(near):
        request = b""
        while not request.endswith(b"body"):
            piece = near.recv(65536)
            if not piece:
                return
            request += piece
        near.sendall(content)
        near.shutdown(socket.SHUT_WR)

    return behave


def exchange(url, body=b"body", settings=None, within_s=20.0):
    made = HttpsExchange(settings or Relay(https=url))
    began = time.monotonic()
    made.begin(body, began)
    while (answer := made.poll(time.monotonic())) is None:
        assert made.busy
        assert time.monotonic() - began < within_s, "it never ends"
        time.sleep(0.01)
    assert not made.busy
    assert made.poll(time.monotonic()) is None
    return answer


class Echo(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        assert self.path == PATH
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body[::-1])

    def log_message(self, *_):
        pass


def test_a_body_goes_there_and_an_answer_comes_back():
    with http.server.HTTPServer(("127.0.0.1", 0), Echo) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        body = bytes(range(256)) * 1000
        answer = exchange(f"http://127.0.0.1:{server.server_port}", body)
        server.shutdown()
    assert (answer.body, answer.trouble) == (body[::-1], "")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"HTTP/1.1 500 Oops\r\n\r\nbroken\x1b[2J", "takes nothing (HTTP 500): broken[2J"),
        (b"HTTP/1.1 503 Busy\r\nRetry-After: 7\r\n\r\nlater", "(HTTP 503): later"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n", "(HTTP 302)"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: nine\r\nX: " + b"a" * 70_000, "is no centre"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (MAX_BODY + 1), "is no centre"),
        (b"SSH-2.0-OpenSSH\r\n", "is no centre: BadStatusLine"),
        (b"", "cannot be reached"),
    ],
)
def test_what_does_not_answer_as_a_centre_is_told_in_words(content, says):
    with raw_server(answers(content)) as port:
        answer = exchange(f"http://127.0.0.1:{port}")
    assert says in answer.trouble
    assert answer.wait_s == (7.0 if b"503" in content else 0.0)
    assert answer.body == b""


def test_nobody_there_is_told_in_words():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert "cannot be reached: [Errno 111] Connection refused" in exchange(f"http://127.0.0.1:{port}").trouble


def test_a_centre_that_says_nothing_is_given_up(monkeypatch):
    monkeypatch.setattr(edge.delivery.https, "_STEP_S", 0.3)
    with raw_server(lambda near: time.sleep(60)) as port:
        assert "timed out" in exchange(f"http://127.0.0.1:{port}").trouble


def test_a_centre_that_takes_nothing_is_given_up(monkeypatch):
    monkeypatch.setattr(edge.delivery.https, "_STEP_S", 0.3)
    with raw_server(lambda near: time.sleep(60)) as port:
        assert "timed out" in exchange(f"http://127.0.0.1:{port}", b"x" * 50_000_000).trouble


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize(
    "begins",
    [
        b"HTTP/1.1 200 OK\r\nX: ",
        b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 200000\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
        b"HTTP/1.1 503 Busy\r\nConnection: close\r\n\r\n",
    ],
)
def test_a_centre_that_drips_is_given_up(monkeypatch, authority, begins, secure):
    """Each byte comes in time; the whole never does."""
    monkeypatch.setattr(edge.delivery.https, "_EXCHANGE_S", 0.3)

    def drip(near):
        near.sendall(begins)
        for _ in range(200):
            near.sendall(b"a")
            time.sleep(0.05)

    server, client = authority.server(), authority.client("clinic-1")
    with raw_server(drip, server_context(authority, server) if secure else None) as port:
        url = f"{'https' if secure else 'http'}://127.0.0.1:{port}"
        files = {"ca": str(authority.ca), "certificate": str(client.cert), "private_key": str(client.key)}
        answer = exchange(url, settings=Relay(https=url, **files), within_s=4.0)
    assert (answer.body, answer.trouble) == (b"", f"The centre at 127.0.0.1:{port} did not finish its answer within 0.3 s.")


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path / "ca")


def server_context(authority, identity):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority.ca))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(identity.cert, identity.key)
    return context


def over_tls(authority, server, trusted=None, host="127.0.0.1", **files):
    identity = authority.client("clinic-1")
    with raw_server(answers(b"HTTP/1.1 200 OK\r\n\r\nhere"), server_context(authority, server)) as port:
        url = f"https://{host}:{port}"
        relay = {"ca": str((trusted or authority).ca), "certificate": str(identity.cert), "private_key": str(identity.key)} | files
        return exchange(url, settings=Relay(https=url, **relay))


def test_the_centre_is_known_by_its_authority_and_its_name(authority, tmp_path):
    server = authority.server()
    assert over_tls(authority, server).body == b"here"
    other = Authority(tmp_path / "other", "another authority")
    assert "certificate verify failed" in over_tls(authority, server, trusted=other).trouble
    nameless = authority.client("clinic-9")  # a certificate of the same authority, and not for this address
    assert "certificate verify failed" in over_tls(authority, nameless).trouble
    assert "Check ca, certificate and private_key" in over_tls(authority, server, private_key=str(tmp_path / "none")).trouble


@pytest.mark.parametrize(("clock", "trusted"), [(True, False), (False, True)])
def test_dates_of_certificates_count_only_while_the_clock_is_right(authority, monkeypatch, clock, trusted):
    monkeypatch.setattr(edge.delivery.tls, "synchronised", lambda: clock)
    old = authority.server("old", days_ago=400)
    answer = over_tls(authority, old)
    assert (answer.body == b"here") is trusted
    assert ("certificate has expired" in answer.trouble) is not trusted


def test_without_a_clock_the_chain_and_the_name_still_count(authority, monkeypatch, tmp_path):
    monkeypatch.setattr(edge.delivery.tls, "synchronised", lambda: False)
    old = authority.server("old", days_ago=400)
    other = Authority(tmp_path / "other", "another authority")
    assert "certificate verify failed" in over_tls(authority, old, trusted=other).trouble
    assert "certificate verify failed" in over_tls(authority, authority.client("clinic-9")).trouble


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")  # paho closes late
def test_mqtt_uses_the_same_rules(authority, monkeypatch):
    monkeypatch.setattr(edge.delivery.tls, "synchronised", lambda: True)
    identity = authority.client("clinic-1")
    files = {"ca": str(authority.ca), "certificate": str(identity.cert), "private_key": str(identity.key)}
    with raw_server(answers(b""), server_context(authority, authority.server("old", days_ago=400))) as port:
        relay = Relay(url=f"mqtts://127.0.0.1:{port}", **files)
        with pytest.raises(CxrError, match="certificate has expired"):
            PahoLink(relay, "clinic-1", "cxr/v1/clinic-1/status", b"{}")
        monkeypatch.setattr(edge.delivery.tls, "synchronised", lambda: False)
        PahoLink(relay, "clinic-1", "cxr/v1/clinic-1/status", b"{}").close()


@pytest.mark.parametrize(
    "url", ["ftp://x", "http://centre.example", "http://127.0.0.1.example", "https://a b", "https://a/b", "https://u@h"]
)
def test_only_loopback_may_be_without_tls(url, tmp_path):
    import msgspec

    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"https": url}, Relay)
    for good in ("", "https://centre.example", "https://10.0.0.1:8444", "http://127.0.0.1:8444", "http://localhost"):
        assert msgspec.convert({"https": good}, Relay).https == good
