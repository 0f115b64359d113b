"""nftables.conf between network namespaces of the test's own: a board, its clinic, and everybody else."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.processes import end, find_program, wait_for

RULES = Path(__file__).resolve().parents[2] / "firmware_configs/first-boot/nftables.conf"
ADDITIONS = RULES.with_name("cxr-firewall-additions")
SERVED, NOT_SERVED = (22, 8080, 11112), (23, 9464, 5432)
CLINIC, STRANGER = {4: "192.168.77.2", 6: "fd00:77::2"}, {4: "203.0.113.2", 6: "2001:db8:77::2"}
BOARD = {"clinic": {4: "192.168.77.1", 6: "fd00:77::1"}, "stranger": {4: "203.0.113.1", 6: "2001:db8:77::1"}}

pytestmark = pytest.mark.skipif(
    os.getuid() != 0 and "CI" not in os.environ, reason="only root can make network namespaces and connect them"
)

LISTEN = """
import json, socket, sys, time
ports, open_ = json.loads(sys.argv[1]), []
for port in ports:
    for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        one = socket.socket(family)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        one.bind((address, port))
        one.listen()
        open_.append(one)
print("listens", flush=True)
time.sleep(600)
"""
# All at once, so that what is dropped costs one timeout.
REACH = """
import json, select, socket, sys, time
wanted, sockets = json.loads(sys.argv[1]), {}
for address, port in wanted:
    one = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    one.setblocking(False)
    one.connect_ex((address, port))
    sockets[one] = f"{address} {port}"
found, until = {}, time.monotonic() + 1.2
while sockets and time.monotonic() < until:
    for one in select.select([], list(sockets), [], 0.1)[1]:
        found[sockets.pop(one)] = one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
print(json.dumps(found))
"""


@dataclass
class Host:
    """A network namespace, kept alive by a process that sleeps in it."""

    process: subprocess.Popen[bytes]

    def run(self, *command: str, fails: bool = False) -> str:
        """Run a program in it."""
        enter = [find_program("nsenter", "util-linux"), f"--target={self.process.pid}", "--net", "--"]
        done = subprocess.run([*enter, *command], capture_output=True, text=True, timeout=60, check=False)
        assert fails or done.returncode == 0, done.stderr
        return done.stdout

    def reaches(self, *places: tuple[str, int]) -> set[tuple[str, int]]:
        """Return which of these addresses and ports take a connection from here."""
        found = json.loads(self.run(sys.executable, "-c", REACH, json.dumps(places)))
        return {place for place in places if found.get(f"{place[0]} {place[1]}") == 0}


@dataclass
class Network:
    board: Host
    clinic: Host
    stranger: Host


@contextlib.contextmanager
def host() -> Iterator[Host]:
    process = subprocess.Popen([find_program("unshare", "util-linux"), "--net", "sleep", "600"])
    try:
        own = Path(f"/proc/{process.pid}/ns/net")
        wait_for(lambda: own.readlink() != Path("/proc/self/ns/net").readlink(), "a namespace of its own")
        made = Host(process)
        made.run("ip", "link", "set", "lo", "up")
        yield made
    finally:
        end(process)


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    with contextlib.ExitStack() as stack:
        made = Network(*(stack.enter_context(host()) for _ in range(3)))
        for name, other, addresses in (("clinic", made.clinic, CLINIC), ("stranger", made.stranger, STRANGER)):
            link = ["ip", "link", "add", name, "type", "veth", "peer", "name", "board", "netns", str(other.process.pid)]
            made.board.run(*link)
            for side, device, ends in ((made.board, name, BOARD[name]), (other, "board", addresses)):
                side.run("ip", "address", "add", f"{ends[4]}/24", "dev", device)
                side.run("ip", "address", "add", f"{ends[6]}/64", "dev", device, "nodad")
                side.run("ip", "link", "set", device, "up")
        # Both have their way back, also to the board's other address.
        made.stranger.run("ip", "route", "add", "192.168.77.0/24", "via", BOARD["stranger"][4])
        made.board.run(find_program("nft", "nftables"), "--file", str(RULES))
        enter = [find_program("nsenter", "util-linux"), f"--target={made.board.process.pid}", "--net", "--"]
        words = [*enter, sys.executable, "-c", LISTEN, json.dumps([*SERVED, *NOT_SERVED])]
        server = subprocess.Popen(words, stdout=subprocess.PIPE)
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == b"listens\n"
            yield made
        finally:
            end(server)
            assert server.stdout is not None
            server.stdout.close()


@pytest.mark.parametrize("version", [4, 6])
def test_the_clinic_reaches_what_is_served_and_nothing_else(network: Network, version: int) -> None:
    address = BOARD["clinic"][version]
    every = [(address, port) for port in (*SERVED, *NOT_SERVED)]
    assert network.clinic.reaches(*every) == {(address, port) for port in SERVED}


@pytest.mark.parametrize("version", [4, 6])
def test_a_stranger_reaches_nothing(network: Network, version: int) -> None:
    every = [(BOARD["stranger"][version], port) for port in (*SERVED, *NOT_SERVED)]
    assert not network.stranger.reaches(*every, *((BOARD["clinic"][4], port) for port in SERVED if version == 4))


def test_a_link_local_address_is_of_the_clinic(network: Network) -> None:
    shown = json.loads(network.board.run("ip", "-json", "-6", "address", "show", "dev", "clinic"))
    (own,) = [one["local"] for one in shown[0]["addr_info"] if one["scope"] == "link"]
    assert network.clinic.run(sys.executable, "-c", f"import socket; socket.create_connection(('{own}%board', 8080), 5); print(1)")


def test_the_board_reaches_itself_and_gets_answers_to_what_it_asks(network: Network) -> None:
    assert network.board.reaches(("127.0.0.1", 9464), ("::1", 9464)) == {("127.0.0.1", 9464), ("::1", 9464)}
    server = subprocess.Popen(
        [find_program("nsenter", "util-linux"), f"--target={network.stranger.process.pid}", "--net", "--", sys.executable, "-c",
         LISTEN, "[8883]"],
        stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == b"listens\n"
        wanted = {(STRANGER[version], 8883) for version in (4, 6)}
        assert network.board.reaches(*wanted) == wanted, "a broker may be anywhere"
    finally:
        end(server)
        assert server.stdout is not None
        server.stdout.close()


def test_the_board_forwards_nothing(network: Network) -> None:
    network.board.run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
    network.clinic.run("ip", "route", "add", "203.0.113.0/24", "via", BOARD["clinic"][4])
    server = [sys.executable, "-m", "http.server", "8099", "--bind", STRANGER[4]]
    enter = [find_program("nsenter", "util-linux"), f"--target={network.stranger.process.pid}", "--net", "--"]
    process = subprocess.Popen([*enter, *server], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: network.stranger.reaches((STRANGER[4], 8099)), "a server of somebody else")
        assert not network.clinic.reaches((STRANGER[4], 8099))
    finally:
        end(process)


def test_the_rules_may_be_loaded_again_while_connections_last(network: Network) -> None:
    code = (
        f"import socket, sys; s = socket.create_connection(('{BOARD['clinic'][4]}', 8080), 5); print('in', flush=True); "
        "sys.stdin.readline(); s.sendall(b'x'); print('sent')"
    )
    enter = [find_program("nsenter", "util-linux"), f"--target={network.clinic.process.pid}", "--net", "--"]
    process = subprocess.Popen([*enter, sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"in\n"
        before = network.board.run(find_program("nft", "nftables"), "--stateless", "list", "ruleset")
        network.board.run(find_program("nft", "nftables"), "--file", str(RULES))
        assert network.board.run(find_program("nft", "nftables"), "--stateless", "list", "ruleset") == before
        said, _ = process.communicate(b"\n", timeout=10)
        assert said == b"sent\n"
    finally:
        end(process)


def test_what_a_clinic_adds_is_added_and_what_is_wrong_takes_nothing_away(network: Network, tmp_path: Path) -> None:
    nft = find_program("nft", "nftables")
    base = network.board.run(nft, "--stateless", "list", "ruleset")
    program = ["env", f"PATH={os.environ['PATH']}:{Path(nft).parent}", str(ADDITIONS), str(tmp_path)]
    address = BOARD["clinic"][4]
    network.board.run(*program)
    assert network.board.run(nft, "--stateless", "list", "ruleset") == base, "nothing to add"
    (tmp_path / "1-mistyped.nft").write_text("add element inet cxr_edge served { 23 }\nad element inet cxr_edge served { 5432 }\n")
    (tmp_path / "2-port.nft").write_text("add element inet cxr_edge served { 9464 }\n")
    enter = [find_program("nsenter", "util-linux"), f"--target={network.board.process.pid}", "--net", "--"]
    done = subprocess.run([*enter, *program], capture_output=True, text=True, timeout=60, check=False)
    try:
        assert done.returncode == 1
        assert "1-mistyped.nft is not in force" in done.stderr
        assert network.clinic.reaches(*((address, port) for port in (22, 23, 5432, 9464))) == {(address, 22), (address, 9464)}
        assert not network.stranger.reaches((BOARD["stranger"][4], 9464))
    finally:
        network.board.run(nft, "--file", str(RULES))
    assert network.board.run(nft, "--stateless", "list", "ruleset") == base, "the base rules take no additions of themselves"
