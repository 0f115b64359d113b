"""How the machine is, what was counted, and the text that Prometheus reads."""

import contextlib
import dataclasses
import re
import socket
import urllib.error
import urllib.request

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edge.clock import boot_id
from edge.config import Device, Watch
from edge.contract.codec import encode
from edge.contract.messages import Status
from edge.delivery import status
from edge.delivery.status import StatusWriter, oldest_waiting_s
from edge.errors import CxrError
from edge.network.manifest import SHIPPED, read_manifest
from edge.outbox.writer import Entry, Outbox
from edge.page.health import Health
from edge.page.words import LANGUAGES, words
from edge.unattended import metrics_server
from edge.unattended.board import Board, read_board
from edge.unattended.metrics import CONTENT_TYPE, exposition
from edge.unattended.tally import STEPS, Tally, TallyFile, note_start, read_restarts, read_tally
from tests.golden.examples import EXAMPLES
from tests.support.processes import free_port

MEMORY = "MemTotal: 4000000 kB\nMemFree: 100 kB\nMemAvailable: 1000000 kB\n"


def machine(root, files):
    for name, content in {"proc/meminfo": MEMORY, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content + "\n")
    return read_board(root)


def test_a_raspberry_pi_that_is_hot_and_weakly_powered(tmp_path):
    board = machine(
        tmp_path,
        {
            "sys/class/thermal/thermal_zone0/type": "cpu-thermal",
            "sys/class/thermal/thermal_zone0/temp": "82345",
            "sys/devices/platform/soc/soc:firmware/get_throttled": "50005",
        },
    )
    assert board.temperature_c == 82.345
    assert board.throttled == ["throttled", "under_voltage", "under_voltage_since_boot"]
    assert board.hot(80.0)
    assert not board.hot(95.0)
    assert (board.memory_available, board.memory_total, board.low_memory) == (1_024_000_000, 4_096_000_000, False)


def test_a_newer_pi_tells_of_its_power_by_hwmon(tmp_path):
    board = machine(tmp_path, {"sys/class/hwmon/hwmon1/name": "rpi_volt", "sys/class/hwmon/hwmon1/in0_lcrit_alarm": "1"})
    assert (board.throttled, board.temperature_c, board.hot(80.0)) == (["under_voltage"], None, False)


@pytest.mark.parametrize("firmware", ["soc/soc:firmware", "soc@107c000000/soc@107c000000:firmware"])
def test_a_pi_tells_why_it_is_slow_wherever_its_kernel_puts_the_firmware(tmp_path, firmware):
    """The second is what the kernel of a Raspberry Pi 5 calls it."""
    path = f"sys/devices/platform/{firmware}/get_throttled"
    assert machine(tmp_path, {path: "5000d"}).throttled == ["throttled", "too_hot", "under_voltage", "under_voltage_since_boot"]
    assert machine(tmp_path, {path: "0"}).throttled == []


def test_whether_a_weak_power_supply_would_be_told_is_known(tmp_path):
    assert not machine(tmp_path / "1", {}).power_told
    assert machine(tmp_path / "2", {"sys/devices/platform/soc/soc:firmware/get_throttled": "0"}).power_told
    assert not machine(tmp_path / "3", {"sys/devices/platform/soc/soc:firmware/get_throttled": "no number"}).power_told
    sensor = {"sys/class/hwmon/hwmon0/name": "rpi_volt", "sys/class/hwmon/hwmon0/in0_lcrit_alarm": "0"}
    assert machine(tmp_path / "4", sensor).power_told
    assert not machine(tmp_path / "5", {**sensor, "sys/class/hwmon/hwmon0/name": "cpu"}).power_told


def test_a_jetson_that_slows_down_and_whose_odd_sensor_is_ignored(tmp_path):
    zone, cooling = "sys/class/thermal/thermal_zone", "sys/class/thermal/cooling_device"
    board = machine(
        tmp_path,
        {
            f"{zone}0/type": "cpu-thermal",
            f"{zone}0/temp": "71000",
            f"{zone}1/type": "PMIC-Die",
            f"{zone}1/temp": "100000",
            f"{zone}2/type": "gpu-thermal",
            f"{zone}2/temp": "-256000",
            f"{cooling}0/type": "pwm-fan",
            f"{cooling}0/cur_state": "3",
            f"{cooling}1/type": "cpufreq-cpu0",
            f"{cooling}1/cur_state": "0",
        },
    )
    assert (board.temperature_c, board.throttled) == (71.0, [])
    board = machine(tmp_path, {f"{cooling}1/cur_state": "2"})
    assert board.throttled == ["throttled"]


@pytest.mark.parametrize("odd", ["", "no number", "\u00e9"])
def test_a_machine_without_sensors_or_with_odd_ones_is_no_error(tmp_path, odd):
    assert read_board(tmp_path).temperature_c is None
    board = machine(
        tmp_path,
        {
            "sys/class/thermal/thermal_zone0/temp": odd,
            "sys/devices/platform/soc/soc:firmware/get_throttled": odd,
            "proc/meminfo": f"MemTotal: {odd}\n{odd}",
        },
    )
    assert (board.temperature_c, board.throttled, board.memory_available, board.memory_total) == (None, [], None, None)
    assert not board.low_memory


def test_this_machine_can_be_read():
    board = read_board()
    assert board.memory_total > board.memory_available > 0


def test_what_is_counted_survives_a_restart_and_a_damaged_file_begins_anew(tmp_path):
    for _ in range(2):
        with contextlib.closing(TallyFile(tmp_path)) as tally:
            tally.note("result", "", {"decode": 20.5, "total": 31.25, "classify": 3.0})
            tally.note("refusal", "colour", {})
    kept = read_tally(tmp_path)
    assert kept.outcomes == {"result": 2, "refusal": 2}
    assert kept.unanswered == {"colour": 2}
    assert (kept.timed, kept.microseconds) == (2, {"decode": 41_000, "total": 62_500})
    (tmp_path / "tally.infer").write_text("x" * 2000)
    assert read_tally(tmp_path) == Tally()
    with contextlib.closing(TallyFile(tmp_path)) as tally:
        tally.note("result", "", {})
    assert read_tally(tmp_path).outcomes == {"result": 1}, "nothing of the longer, damaged file is left behind it"


def test_restarts_are_counted_for_each_process_since_the_boot(tmp_path):
    for name in ("infer", "relay", "infer", "infer"):
        note_start(tmp_path, name)
    (tmp_path / "starts/old").write_text("00000000-0000-0000-0000-000000000000 9\n")
    assert read_restarts(tmp_path) == {"infer": 2, "relay": 0}


@pytest.fixture
def outbox(tmp_path):
    with contextlib.closing(Outbox(tmp_path / "outbox.db", "clinic-7")) as made:
        yield made


def recorded(outbox, **changes):
    outcome = EXAMPLES["refusal"]
    outbox.record(
        Entry(f"k{outbox.last_seq()}", "refusal", lambda seq: encode(msgspec.structs.replace(outcome, seq=seq, **changes)))
    )


def test_the_age_of_what_waits_is_known_without_a_clock(outbox, monkeypatch):
    monkeypatch.setattr(status.time, "clock_gettime", lambda clock: 5000.0)
    assert oldest_waiting_s(outbox) == 0.0
    recorded(outbox, boot_id=boot_id(), monotonic_ns=4_000_000_000_000, clock_synchronised=False)
    recorded(outbox, boot_id=boot_id(), monotonic_ns=4_900_000_000_000, clock_synchronised=False)
    assert oldest_waiting_s(outbox) == 1000.0
    outbox.mark_receipted(1, [])
    assert oldest_waiting_s(outbox) == 100.0


def test_the_age_of_what_an_earlier_boot_left_is_at_least_that_of_this_one(outbox, monkeypatch):
    monkeypatch.setattr(status.time, "clock_gettime", lambda clock: 5000.0)
    monkeypatch.setattr(status, "synchronised", lambda: True)
    recorded(outbox, clock_synchronised=False)
    recorded(outbox, clock_synchronised=True, recorded_at="2026-01-31T12:00:00Z")
    assert oldest_waiting_s(outbox) == 5000.0
    outbox.mark_receipted(1, [])
    assert oldest_waiting_s(outbox) > 86_400


def test_a_moment_that_never_was_leaves_the_status_standing(outbox, monkeypatch):
    monkeypatch.setattr(status.time, "clock_gettime", lambda clock: 5000.0)
    monkeypatch.setattr(status, "synchronised", lambda: True)
    recorded(outbox, clock_synchronised=True, recorded_at="2026-02-31T12:00:00Z")
    assert oldest_waiting_s(outbox) == 5000.0


def test_the_status_tells_how_the_machine_is(tmp_path, outbox, monkeypatch):
    monkeypatch.setattr(status, "read_board", lambda: Board(85.0, ["too_hot"], 1, 100, 0.5))
    note_start(tmp_path, "relay")
    note_start(tmp_path, "relay")
    device = Device(device="clinic-7", facility="C", state=str(tmp_path), site_key="k", watch=Watch(folder="f"))
    made = StatusWriter(device, None, outbox)("online")
    assert made.hot_c == 80.0, "without a [board] table"
    assert (made.temperature_c, made.throttled, made.restarts, made.oldest_waiting_s) == (85.0, ["too_hot"], 1, 0.0)
    assert (made.memory_available_bytes, made.memory_total_bytes, made.load_1m) == (1, 100, 0.5)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_page_says_what_to_do_about_heat_power_and_memory(tmp_path, outbox, monkeypatch, language):
    from edge.capacity import Capacity
    from edge.outbox.reading import Reading

    say = words(language)
    reading = Reading(tmp_path / "outbox.db", "clinic-7")
    health = Health(tmp_path, ["infer"], reading, Capacity(tmp_path, 2**28, 0), read_manifest(SHIPPED))
    monkeypatch.setattr("edge.page.health.is_running", lambda state, name: True)
    monkeypatch.setattr("edge.page.health.read_board", lambda: Board(85.0, ["under_voltage"], 1, 100, 0.5))
    assert {say("health.hot"), say("health.power"), say("health.memory")} == set(health.read(say).troubles)
    monkeypatch.setattr("edge.page.health.read_board", lambda: Board(85.0, [], 99, 100, 0.5))
    assert health.read(say).troubles == [say("health.hot")]
    assert not dataclasses.replace(health, hot_c=95.0).read(say).troubles, "a board that bears more"
    monkeypatch.setattr("edge.page.health.read_board", lambda: Board(50.0, ["throttled"], 99, 100, 0.5))
    read = health.read(say)
    assert not read.troubles
    assert say("health.slow") in read.facts


SAMPLE = re.compile(
    r'(?P<name>[a-z_:][a-z0-9_:]*)(?:\{(?P<labels>(?:[a-z_]+="(?:[^"\\\n]|\\[\\"n])*",?)+)\})? (?P<value>-?[0-9.e+-]+|NaN|[+-]Inf)'
)
LABEL = re.compile(r'([a-z_]+)="((?:[^"\\\n]|\\[\\"n])*)"')


def scraped(text):
    """Return {(name, labels): value}, holding the page to the grammar of the text exposition format 0.0.4."""
    assert text.endswith("\n")
    found, kinds, helped = {}, {}, set()
    for line in text.removesuffix("\n").split("\n"):
        if line.startswith("# HELP "):
            name = line.split(" ")[2]
            assert name not in helped
            helped.add(name)
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name in helped
            assert name not in kinds
            kinds[name] = kind
        else:
            match = SAMPLE.fullmatch(line)
            assert match, line
            name = match["name"]
            family = re.sub("_(sum|count)$", "", name) if re.sub("_(sum|count)$", "", name) in kinds else name
            assert family == list(kinds)[-1], "the lines of a family stand together, after its type"
            assert (kinds[family] == "counter") == name.endswith("_total")
            labels = frozenset(
                (key, value.replace("\\n", "\n").replace('\\"', '"').replace("\\\\", "\\"))
                for key, value in LABEL.findall(match["labels"] or "")
            )
            assert (name, labels) not in found
            found[name, labels] = float(match["value"])
    return found


def test_the_metrics_follow_the_exposition_format_and_say_what_is_known():
    tally = Tally({"result": 7, "refusal": 2}, {"colour": 2}, {"decode": 1_500_000, "total": 2_000_000}, 7)
    found = scraped(exposition(EXAMPLES["status"], tally, {"infer": 1}, 5, connected=True))

    def value(name, **labels):
        return found["cxr_edge_" + name, frozenset(labels.items())]

    assert value("waiting_outcomes") == 3
    assert value("oldest_waiting_seconds") == 7200.5
    assert value("temperature_celsius") == 61.5
    assert value("throttled", cause="under_voltage") == 1
    assert value("outcomes_total", kind="result") == 7
    assert value("unanswered_total", reason="colour") == 2
    assert value("work_seconds_sum", step="decode") == 1.5
    assert value("work_seconds_count", step="total") == 7
    assert value("restarts_total", process="infer") == 1
    assert (value("receipts_total"), value("centre_connected"), value("takes_xrays")) == (5, 1, 1)
    assert value("disk_free_bytes") == 1_000_000_000
    assert value("info", device="clinic-7", software="0.1.0", model="chest 1") == 1
    assert set(STEPS) == {"decode", "total"}


@example('a\nb\\n"c', 0, 0.0)
@given(st.text(), st.integers(0, 2**53), st.floats(0, 1e12))
def test_any_value_keeps_the_format(model, count, seconds):
    made = Status(device="d", facility="f", state="online", software="1", model_name=model, waiting=count, uptime_s=seconds)
    try:
        found = scraped(exposition(made, Tally(), {}, 0, connected=False))
    except UnicodeEncodeError:
        return
    assert found["cxr_edge_waiting_outcomes", frozenset()] == count
    assert found["cxr_edge_uptime_seconds", frozenset()] == seconds


@pytest.fixture
def served():
    texts = ["# HELP a b\n"]

    def text():
        if not texts:
            raise CxrError("broken")
        return texts[0]

    port = free_port()
    metrics_server.serve_in_thread(port, text)
    return texts, port


def get(port, path="/metrics", **options):
    with urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{port}{path}", **options), timeout=5) as answer:
        return answer.headers["Content-Type"], answer.read().decode()


def test_the_metrics_are_served_on_loopback_alone(served):
    texts, port = served
    assert get(port) == (CONTENT_TYPE, texts[0])
    assert get(port, method="HEAD") == (CONTENT_TYPE, "")
    for path, method, status_code in (("/", "GET", 404), ("/metrics", "POST", 405)):
        with pytest.raises(urllib.error.HTTPError) as caught:
            get(port, path, method=method)
        assert caught.value.code == status_code
        caught.value.close()
    texts.clear()
    with pytest.raises(urllib.error.HTTPError) as caught:
        get(port)
    assert caught.value.code == 503
    caught.value.close()
    with socket.socket() as probe, pytest.raises(OSError, match="refused"):
        probe.connect(("127.0.0.2", port))


def test_who_asks_nothing_or_goes_away_does_not_keep_others_from_the_metrics(served, monkeypatch):
    texts, port = served
    monkeypatch.setattr(metrics_server, "_PATIENCE_S", 0.2)
    for sent in (b"", b"GET /met", b"\x00" * 9000):
        with socket.create_connection(("127.0.0.1", port)) as odd:
            odd.sendall(sent)
            assert get(port)[1] == texts[0]


def test_a_port_that_is_taken_is_said():
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(CxrError, match="cannot be listened on"):
        metrics_server.serve_in_thread(taken.getsockname()[1], lambda: "")
