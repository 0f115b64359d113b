"""Fifty invented patients in every field of files and configuration: nothing that leaves the clinic shows one, nor does a log.

The whole device runs, with a real broker and a real centre. What it says to both is heard on the wire, and by a subscriber.
"""

import base64
import contextlib
import http.client
import io
import json
import subprocess
import sys
import urllib.request
import zlib
from pathlib import Path
from urllib.parse import quote, quote_plus

import numpy as np
import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from PIL import Image, ImageFilter

from edge.config import load_config
from edge.pacs.cursor import read_place
from edge.sealed.file import open_sealed
from edge.sealed.keys import load_identity
from edge.unattended.logs import PER_MINUTE
from export.phantom import phantom
from tests.support.authority import Authority
from tests.support.canaries import Needles, damaged_with, dicom_with, people, picture_with
from tests.support.centre import aggregator
from tests.support.clinic import make_device
from tests.support.dicom import MACHINE, dcmtk
from tests.support.mosquitto import loopback_mosquitto
from tests.support.processes import find_program, free_port, listens, running, wait_for
from tests.support.remote import Wire

PEOPLE = people(50, 20260131)


def secrets():
    return (secret for person in PEOPLE for secret in person.secrets())


@pytest.mark.parametrize("secret", [PEOPLE[number].family for number in range(9)] + [PEOPLE[0].number, PEOPLE[0].born])
def test_a_canary_is_found_in_every_way_of_writing_it(secret):
    needles = Needles(iter([secret]))
    told = f"patient {secret} of today"
    ways = [
        told.encode(), told.encode("utf-16-le"), told.encode("utf-16-be"), told.upper().encode(), told.lower().encode(),
        told[::-1].encode(), told.encode().hex().encode(), told.encode().hex().upper().encode(), json.dumps({"a": told}).encode(),
        quote(told).encode(), quote_plus(told).encode(), repr(told.encode()).encode(), ascii(told).encode(),
        *(base64.b64encode(b"x" * shift + told.encode()) for shift in range(3)),
    ]  # fmt: skip
    assert [way for way in ways if not needles.found(way)] == []
    assert not needles.found(b"patient somebody else of today 12345678" * 3)


class Tap(Wire):
    """A proxy that remembers what a device has said."""

    def __init__(self, target):
        self.heard = bytearray()
        super().__init__(target)

    def _carry(self, source, target):
        to_target = source.getsockname()[1] == self.port
        with contextlib.suppress(OSError):
            while piece := source.recv(65536):
                if to_target:
                    self.heard += piece
                target.sendall(piece)


def inflated(heard):
    """Return what is in the gzip bodies of some HTTP requests."""
    out = b""
    for body in bytes(heard).split(b"\r\n\r\n")[1:]:
        with contextlib.suppress(zlib.error):
            out += zlib.decompressobj(31).decompress(body)
    return out


class Visitor:
    """A browser of the clinic, without the pictures."""

    def __init__(self, port, pin):
        self._port = port
        self._cookie = ""
        answer, _ = self.ask("POST", "/login", f"pin={pin}".encode())
        self._cookie = answer.getheader("Set-Cookie").partition(";")[0]

    def ask(self, method, path, body=None):
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)) as connection:
            headers = {"Origin": f"http://127.0.0.1:{self._port}", "Cookie": self._cookie}
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer, answer.read()


def chest(seed, side=256):
    drawn = Image.fromarray(phantom(seed, width=128, height=128)).resize((side, side), Image.Resampling.BICUBIC)
    return drawn.filter(ImageFilter.GaussianBlur(1))


def intakes(folder):
    """Write all files; return (those for the network, those for the watched folder, those for the page) and who is in which."""
    network, dropped, uploaded = [], {}, {}
    image = chest(1)
    for number, person in enumerate(PEOPLE):
        way = number % 5
        name = f"{person.family} {person.given} {person.number} {person.born}"
        pixels = np.asarray(chest(number + 2) if number < 10 else image)
        file = dicom_with(person, folder / f"{number}.dcm", pixels, number)
        if way == 0:
            network.append(file)
        elif way == 1:
            dropped[f"{name}.dcm"] = file.read_bytes()
        elif way == 2:
            uploaded[f"{name}.dcm"] = file.read_bytes()
        else:
            kind = ("PNG", "JPEG", "TIFF")[number // 5 % 3]
            (dropped if way == 3 else uploaded)[f"{name}.{kind.lower()}"] = picture_with(person, chest(number + 2), kind)
        if number % 9 == 4:
            bad = damaged_with(person, file.read_bytes(), picture_with(person, image, "PNG"))
            for place, (suffix, content) in enumerate(bad.items()):
                (dropped if place % 2 else uploaded)[f"{name} {suffix}"] = content
    return network, dropped, uploaded


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """Let a device take all of it in by every way, deliver by every way, and return what was to be heard of it, by where."""
    home = tmp_path_factory.mktemp("canary")
    network, dropped, uploaded = intakes(tmp_path_factory.mktemp("files"))
    authority = Authority(home / "ca")
    centre, client = authority.server("centre"), authority.client("clinic-1")
    spied = []
    with contextlib.ExitStack() as stack:
        broker = stack.enter_context(loopback_mosquitto(tmp_path_factory.mktemp("mosquitto")))
        sync_port = free_port()
        mqtt, https = (stack.enter_context(contextlib.closing(Tap(port))) for port in (broker.port, sync_port))
        spy = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
        spy.on_connect = lambda *_: spy.subscribe("#", qos=1)
        spy.on_message = lambda _client, _data, message: spied.append(message.topic.encode() + b"\n" + message.payload)
        spy.connect("127.0.0.1", broker.port)
        spy.loop_start()
        stack.callback(spy.loop_stop)
        stack.callback(spy.disconnect)

        relay = [f'https = "http://127.0.0.1:{https.port}"', "https_after_s = 0.5", "status_every_s = 0.5"]
        relay += [f'certificate = "{client.cert}"', f'private_key = "{client.key}"', f"# {PEOPLE[0].family}"]
        device = make_device(home / "device", f"mqtt://127.0.0.1:{mqtt.port}", extra=relay)
        inbox = device.home / f"{PEOPLE[1].family} {PEOPLE[1].number}"  # a folder may be called so; nothing may say it
        inbox.mkdir()
        dicom_port = free_port()
        text = device.config.read_text("utf-8").replace('folder = "inbox"', f'folder = "{inbox}"')
        tables = f'\n[usb]\ncentre = "{centre.cert}"\n[dicom]\nport = {dicom_port}\nallow = ["{MACHINE}@127.0.0.1"]\n'
        pacs_port, metrics_port = free_port(), free_port()
        tables += f'[pacs]\naddress = "127.0.0.1"\nport = {pacs_port}\ncalled_ae_title = "PACS"\n[metrics]\nport = {metrics_port}\n'
        device.config.write_text(text + tables, "utf-8")
        archive = home / "archive"
        archive.mkdir()
        command = [find_program("storescp", "dcmtk"), "-aet", "PACS", "-od", str(archive), str(pacs_port)]
        stack.enter_context(running(command, home / "archive.log"))
        settings = load_config(device.config)
        device.start()
        stack.callback(device.stop)

        for name, content in dropped.items():
            (inbox / f".{len(name)}.part").write_bytes(content)
            (inbox / f".{len(name)}.part").rename(inbox / name)
        wait_for(lambda: listens(settings.page.port) and listens(dicom_port), "page and listener", 60)
        assert dcmtk("storescu", dicom_port, "-R", *network).returncode == 0
        visitor = Visitor(settings.page.port, Path(settings.page.pin).read_text().strip())
        for name, content in uploaded.items():
            visitor.ask("POST", f"/uploads?name={quote(name)}", content)
        count = len(network) + len(dropped) + len(uploaded) - sum(not content for content in uploaded.values())
        wait_for(lambda: device.waiting() == count, f"{count} outcomes; there are {device.waiting()}", 120)
        pages = visitor.ask("GET", "/")[1] + b"".join(visitor.ask("GET", f"/studies/{number}")[1] for number in range(1, count + 1))
        visitor.ask("POST", "/studies/1/wrong-patient", b"")
        wait_for(lambda: device.waiting() == count + 1, "the void", 30)
        wait_for(lambda: list(read_place(device.state).through.values()) == [count + 1], "the PACS is told of all", 240)

        def call(*words):
            command = [sys.executable, "-m", "edge.cli", words[0], "--config", device.config, *words[1:]]
            done = subprocess.run(command, capture_output=True, timeout=120, check=False)
            return done.stdout + done.stderr

        stick, plain = home / "stick", home / "plain"
        stick.mkdir()
        said = call("export", stick) + call("check") + call("key", "show") + call("deidentify", plain, *network)
        (sealed,) = stick.iterdir()
        opened = open_sealed(io.BytesIO(sealed.read_bytes()))
        carried = zlib.decompressobj(31).decompress(b"".join(opened.content(load_identity(centre.cert, centre.key))))
        program = stack.enter_context(
            aggregator(
                home,
                f"mqtt://127.0.0.1:{free_port()}",
                f"sqlite:///{home}/c.db",
                ["--sync", f"http://127.0.0.1:{sync_port}"],
                connected=False,
            )
        )
        wait_for(lambda: device.waiting() == 0, "HTTPS delivers all", 60)
        wait_for(lambda: not list((device.state / "spool").iterdir()), "the spool is empty")
        with urllib.request.urlopen(f"http://127.0.0.1:{metrics_port}/metrics", timeout=30) as answer:
            metrics = answer.read()
        kept_logs = [path.read_bytes() for path in sorted((device.state / "log").iterdir())]
        names = "\n".join(str(path.relative_to(device.state)) for path in device.state.rglob("*"))
        heard = {
            "what a subscriber gets": b"\n".join(spied),
            "MQTT on the wire": bytes(mqtt.heard),
            "HTTPS heads and bodies": bytes(https.heard) + inflated(https.heard),
            "the file on the stick": sealed.name.encode() + sealed.read_bytes() + carried,
            "pictures that may leave": b"".join(path.name.encode() + path.read_bytes() for path in sorted(plain.iterdir())),
            "the log of the device": device.log.read_bytes(),
            "what commands said": said.replace(str(inbox).encode(), b"the watched folder"),  # as device.toml names it
            "the logs of the centre": program.log.read_bytes() + broker.log.read_bytes(),
            "names of files in state": names.encode(),
            "the metrics": metrics,
            "the logs that are kept": b"".join(kept_logs),
            "how far the PACS was told": (device.state / "pacs.json").read_bytes(),
        }
        yield heard, count, pages, [path.read_bytes() for path in archive.iterdir()]


WHERE = (
    "what a subscriber gets", "MQTT on the wire", "HTTPS heads and bodies", "the file on the stick", "pictures that may leave",
    "the log of the device", "what commands said", "the logs of the centre", "names of files in state", "the metrics",
    "the logs that are kept", "how far the PACS was told",
)  # fmt: skip


@pytest.fixture(scope="module")
def needles():
    return Needles(secrets())


@pytest.mark.parametrize("where", WHERE)
def test_no_canary_is_heard(told, needles, where):
    assert needles.found(told[0][where]) == set()


def test_the_clinics_own_archive_is_told_who_it_is(told, needles):
    """What goes back to it names the patients, and what is said of that names none: see the tests above."""
    heard, _, _, objects = told
    assert len(objects) > 30
    assert all(needles.found(one[:8192]) for one in objects), "before the pixels"
    assert b"process=pacs" in heard["the logs that are kept"]
    assert heard["the log of the device"].count(b"the PACS has the report") >= PER_MINUTE, "more are left out"


def test_the_device_has_read_what_it_does_not_tell_and_all_was_heard(told):
    heard, count, pages, _ = told
    assert set(heard) == set(WHERE)
    shown = pages.decode()
    dicoms = [person for number, person in enumerate(PEOPLE) if number % 5 in (0, 1, 2)]
    assert [person for person in dicoms if person.family not in shown or person.number not in shown] == []
    for where in ("what a subscriber gets", "MQTT on the wire", "HTTPS heads and bodies", "the file on the stick"):
        assert heard[where].count(b'"source_key"') >= count, where
        assert b"Test clinic" in heard[where]
    assert b"cxr/v1/clinic-1/status" in heard["what a subscriber gets"]
    assert heard["pictures that may leave"].count(b"DICM") > 5
    for reason in (b"damaged", b"truncated", b"not_an_image", b"not_a_radiograph", b"empty_file"):
        assert reason in heard["the log of the device"], reason
        assert reason in heard["the file on the stick"], reason
    assert b'"patient_missing":"not_dicom"' in heard["the file on the stick"]
    assert heard["names of files in state"].count(b"local/") >= count
    assert b"pacs.json" in heard["names of files in state"]
    assert b'cxr_edge_outcomes_total{kind="result"}' in heard["the metrics"]
