"""The third way: outcomes on a USB stick to the centre, receipts on it back. Real commands, real databases."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import select

from broker import schema
from broker.database import parse_url, reader_engine
from broker.errors import FileRefused, StoreUnavailable
from broker.reader import Reader
from broker.settle import Settler
from broker.sql_store import SqlStore
from broker.store import Batch, MemoryStore
from broker.usb import import_file
from edge.config import load_config
from edge.contract import codec
from edge.contract.frames import Frame, FrameWriter
from edge.contract.topics import Channel
from edge.delivery.usb import export_outcomes, import_receipts
from edge.errors import CxrError
from edge.outbox.writer import Entry
from edge.sealed.file import seal
from edge.sealed.keys import Identity, load_certificate, load_identity
from tests.support import messages
from tests.support.authority import Authority
from tests.support.centre import ROOT, aggregator
from tests.support.messages import EPOCH, OTHER_EPOCH
from tests.support.mosquitto import Mosquitto
from tests.support.processes import free_port, wait_for
from tests.support.remote import Remote, remote, tls


class Place:
    """An authority, a centre with its key, and a stick."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority(folder / "ca")
        self.files = self.authority.server("centre")
        self.stick = folder / "stick"
        self.stick.mkdir()

    @property
    def identity(self) -> Identity:
        return load_identity(self.files.cert, self.files.key)

    def device(self, name: str = "clinic-1", **lines: object) -> Remote:
        given = tls(self.authority.ca, self.authority.client(name)) | lines
        made = remote(self.folder / name, name, f"mqtt://127.0.0.1:{free_port()}", **given)
        made.config.write_text(made.config.read_text() + f'[usb]\ncentre = "{self.files.cert}"\n')
        return made

    def export(self, device: Remote) -> Path:
        with contextlib.closing(device.outbox()) as outbox:
            path, count = export_outcomes(load_config(device.config), outbox, self.stick)
        assert path is not None
        assert count == device.waiting()
        return path

    def take(self, path: Path, settler: Settler) -> Path:
        return import_file(path, settler, load_certificate(self.authority.ca), self.identity, self.stick).receipts

    def back(self, device: Remote, path: Path) -> int:
        with contextlib.closing(device.outbox()) as outbox:
            return import_receipts(load_config(device.config), outbox, path)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def stored(database: str) -> list[tuple[str, int]]:
    with reader_engine(parse_url(database)).connect() as connection:
        return sorted((row[0], int(row[1])) for row in connection.execute(select(schema.outcomes.c.device, schema.outcomes.c.seq)))


def call(*arguments: object) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", *(str(one) for one in arguments)]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
def test_both_links_down_a_stick_brings_all_there_and_the_receipts_back(
    request: pytest.FixtureRequest, place: Place, engine: str, mosquitto: Mosquitto
) -> None:
    make: Callable[[], str] = request.getfixturevalue("postgres_database") if engine == "postgresql" else lambda: ""
    database = make() or f"sqlite:///{place.folder}/centre.db"
    device = place.device(https=f"https://127.0.0.1:{free_port()}", https_after_s=0.2)
    device.record(1200)
    with device.relay():
        wait_for(lambda: device.said("cannot be reached") >= 2, "both ways are down", 30)
        exported = call("edge.cli", "export", "--config", device.config, place.stick)
        assert exported.returncode == 0, exported.stderr
        assert "Wrote 1200 outcomes" in exported.stdout
        (file,) = place.stick.iterdir()
        imported = call(
            "broker.cli", "import", file, "--db", database,
            "--ca", place.authority.ca, "--cert", place.files.cert, "--key", place.files.key,
        )  # fmt: skip
        assert imported.returncode == 0, imported.stderr
        assert "1200 outcomes of clinic-1" in imported.stdout
        assert device.waiting() == 1200, "nothing is forgotten without the centre's receipts"
        (receipts,) = place.stick.glob("cxr-receipts-*")
        device.record(1)
        back = call("edge.cli", "import-receipts", "--config", device.config, receipts)
        assert (back.returncode, back.stdout) == (0, "1200 outcomes have their receipt now; 1 wait.\n")
    assert stored(database) == [("clinic-1", seq) for seq in range(1, 1201)]
    with aggregator(place.folder, mosquitto.url, database):  # and the way that works again goes on from there
        device.config.write_text(device.config.read_text().replace("url = ", f'url = "{mosquitto.url}"\n#'))
        with device.relay():
            wait_for(lambda: device.waiting() == 0, "MQTT delivers the rest", 30)
    assert stored(database) == [("clinic-1", seq) for seq in range(1, 1202)]
    assert Reader(parse_url(database)).totals().results == 1201


def test_files_in_any_order_and_again_count_once(place: Place, store: MemoryStore) -> None:
    device, settler = place.device(), Settler(store)
    device.record(3)
    first = place.export(device)
    device.record(2)
    second = place.export(device)
    assert first != second
    receipts = [place.take(path, settler) for path in (second, first, second)]
    assert sorted(seq for _, _, seq in store.outcomes) == [1, 2, 3, 4, 5]
    assert store.rejected == []
    assert [place.back(device, path) for path in receipts] == [5, 0, 0]
    with contextlib.closing(device.outbox()) as outbox:
        assert export_outcomes(load_config(device.config), outbox, place.stick) == (None, 0)


def test_an_outcome_of_the_device_that_comes_by_https_and_on_the_stick_counts_once(place: Place, store: MemoryStore) -> None:
    device, settler = place.device(), Settler(store)
    device.record(2)
    path = place.export(device)
    from broker.ingest import Inbound, classify

    with contextlib.closing(device.outbox()) as outbox:
        rows = outbox.unreceipted(0, 1)
    settler.settle([classify(Inbound("cxr/v1/clinic-1/result", rows[0].payload, 1))])
    place.take(path, settler)
    assert len(store.outcomes) == 2
    assert store.rejected == []


def test_it_is_judged_as_what_comes_by_mqtt(place: Place, store: MemoryStore) -> None:
    device = place.device()
    device.record(1)
    with contextlib.closing(device.outbox()) as outbox:
        good = codec.encode(messages.result("clinic-1", 2, outbox.epoch))
        outbox.record(Entry("odd", "result", lambda seq: good.replace(b'"schema":1', b'"schema":7')))
        outbox.record(Entry("foreign", "result", lambda seq: codec.encode(messages.result("clinic-9", 3, outbox.epoch))))
    place.back(device, place.take(place.export(device), Settler(store)))
    assert [odd.reason for odd in store.rejected] == ["unknown_schema", "identity_mismatch"]
    assert len(store.outcomes) == 1
    assert device.waiting() == 1, "another device's outcome is not receipted, as by MQTT"
    with contextlib.closing(device.outbox()) as outbox:
        assert outbox.listing(2)[1]["quarantined"] == "unknown_schema"


def test_a_device_with_a_closed_epoch_delivers_that_too(place: Place, store: MemoryStore) -> None:
    device = place.device()
    device.record(2)
    with contextlib.closing(device.outbox()) as outbox:
        closed = outbox.epoch
        outbox._db.execute("INSERT INTO stream (base, device, epoch, last_seq) VALUES (2, ?, ?, 0)", (device.name, OTHER_EPOCH))
    with contextlib.closing(device.outbox()) as outbox:
        outbox.record(Entry("new", "result", lambda seq: codec.encode(messages.result(device.name, seq, OTHER_EPOCH))))
    assert place.back(device, place.take(place.export(device), Settler(store))) == 3
    assert sorted(store.outcomes) == sorted([("clinic-1", closed, 1), ("clinic-1", closed, 2), ("clinic-1", OTHER_EPOCH, 1)])
    assert store.rejected == []


@pytest.mark.parametrize("harm", ["cut", "flipped", "empty", "text"])
def test_a_damaged_file_is_refused_and_stores_nothing(place: Place, store: MemoryStore, harm: str) -> None:
    device = place.device()
    device.record(300)
    path = place.export(device)
    content = bytearray(path.read_bytes())
    content[len(content) * 2 // 3] ^= 4
    path.write_bytes(
        {"cut": path.read_bytes()[: len(content) // 2], "flipped": bytes(content), "empty": b"", "text": b"hello"}[harm]
    )
    with pytest.raises(FileRefused, match=str(path)):
        place.take(path, Settler(store))
    assert (store.outcomes, store.rejected) == ({}, [])
    assert list(place.stick.glob("cxr-receipts-*")) == []


def test_files_of_strangers_are_refused(place: Place, store: MemoryStore, tmp_path: Path) -> None:
    settler = Settler(store)
    device = place.device()
    device.record(1)
    path = place.export(device)
    other = Place(_folder(tmp_path / "other"))
    with pytest.raises(FileRefused, match="no device of this authority"):
        import_file(path, settler, load_certificate(other.authority.ca), place.identity, place.stick)
    with pytest.raises(FileRefused, match="written for somebody else"):
        import_file(path, settler, load_certificate(place.authority.ca), other.identity, place.stick)
    for issue, says in (
        (lambda: place.authority.client("clinic-2"), "hello of the device"),
        (lambda: place.authority.server("clinic-1"), "does not come from a device"),
        (lambda: place.authority.client("clinic-1", days_ago=400), "not valid now"),
    ):
        certificate = issue()
        lines = {"certificate": str(certificate.cert), "private_key": str(certificate.key)}
        shutil.rmtree(device.home / "again", ignore_errors=True)
        made = remote(device.home / "again", "clinic-1", "mqtt://127.0.0.1:1", **lines)
        made.config.write_text(made.config.read_text() + f'[usb]\ncentre = "{place.files.cert}"\n')
        made.record(1)
        with pytest.raises(FileRefused, match=says):
            place.take(place.export(made), settler)
    assert (store.outcomes, store.rejected) == ({}, [])


def test_receipts_that_the_centre_did_not_sign_for_this_device_mark_nothing(place: Place, store: MemoryStore) -> None:
    device, neighbour, settler = place.device(), place.device("clinic-2"), Settler(store)
    device.record(2)
    neighbour.record(2)
    outcomes = place.export(device)
    genuine = place.take(outcomes, settler)
    refused = []

    def refuse(path: Path, says: str) -> None:
        with pytest.raises(CxrError, match=says):
            place.back(device, path)
        refused.append(path)

    content = bytearray(genuine.read_bytes())
    content[-1] ^= 1
    changed = place.stick / "changed"
    changed.write_bytes(content)
    refuse(changed, "cut or changed")
    changed.write_bytes(genuine.read_bytes()[:-100])
    refuse(changed, "cut or changed")
    refuse(place.take(place.export(neighbour), settler), "written for somebody else")
    refuse(outcomes, "not signed by the centre")
    # A device of the same authority that makes itself the centre:
    forger = place.authority.client("clinic-3")
    as_centre = load_identity(forger.cert, forger.key)
    config = neighbour.home / "forged"
    made = remote(config, "clinic-1", "mqtt://127.0.0.1:1", **_own_tls(device))
    made.config.write_text(made.config.read_text() + f'[usb]\ncentre = "{forger.cert}"\n')
    made.record(2)
    with contextlib.closing(made.outbox()) as outbox:
        exported, _ = export_outcomes(load_config(made.config), outbox, place.stick)
    assert exported is not None
    forged = import_file(exported, Settler(MemoryStore()), load_certificate(place.authority.ca), as_centre, place.stick)
    refuse(forged.receipts, "not signed by the centre")
    assert len(refused) == 5
    assert device.waiting() == 2
    assert place.back(device, genuine) == 2


def test_a_stick_without_room_or_not_there(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    device = place.device()
    device.record(1)
    config = load_config(device.config)
    with contextlib.closing(device.outbox()) as outbox:
        with pytest.raises(CxrError, match="Plug the stick in"):
            export_outcomes(config, outbox, place.folder / "nowhere")
        monkeypatch.setattr("edge.delivery.usb.free_bytes", lambda folder: 1000)
        with pytest.raises(CxrError, match="not enough room"):
            export_outcomes(config, outbox, place.stick)
    assert list(place.stick.iterdir()) == []


def test_a_stick_that_is_full_after_all_keeps_no_half_file(place: Place) -> None:
    device = place.device()
    device.record_at_once(6000)
    limited = [
        sys.executable, "-c",
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536)); import signal;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); from edge.cli import main; main(sys.argv[1:])",
        "export", "--config", str(device.config), str(place.stick),
    ]  # fmt: skip
    ended = subprocess.run(limited, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert "File too large" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert list(place.stick.iterdir()) == []
    assert device.waiting() == 6000


def test_a_device_without_keys_says_what_is_missing(place: Place) -> None:
    device = remote(place.folder / "bare", "clinic-5", "mqtt://127.0.0.1:1")
    device.record(1)
    ended = call("edge.cli", "export", "--config", device.config, place.stick)
    assert ended.returncode == 2
    assert "[usb] centre" in ended.stderr


def test_a_database_that_is_away_is_no_receipt_and_the_file_is_good_again_later(place: Place) -> None:
    class Away(MemoryStore):
        away = True

        def commit(self, batch: Batch) -> None:
            if self.away:
                raise StoreUnavailable("gone")
            super().commit(batch)

    device, store = place.device(), Away()
    device.record(2)
    path = place.export(device)
    with pytest.raises(StoreUnavailable):
        place.take(path, Settler(store))
    assert list(place.stick.glob("cxr-receipts-*")) == []
    store.away = False
    assert place.back(device, place.take(path, Settler(store))) == 2


def test_one_bad_file_among_good_ones(place: Place) -> None:
    device = place.device()
    device.record(1)
    good, bad = place.export(device), place.stick / "bad"
    bad.write_bytes(b"not ours")
    database = f"sqlite:///{place.folder}/centre.db"
    keys = ("--ca", place.authority.ca, "--cert", place.files.cert, "--key", place.files.key)
    ended = call("broker.cli", "import", bad, good, "--db", database, *keys, "--receipts", place.folder)
    assert ended.returncode == 1
    assert "bad is refused: it is no file of cxr-edge" in ended.stderr
    assert stored(database) == [("clinic-1", 1)]
    assert len(list(place.folder.glob("cxr-receipts-*"))) == 1
    with contextlib.closing(SqlStore(parse_url(database))):
        locked = call("broker.cli", "import", good, "--db", database, *keys)
    assert locked.returncode == 2
    assert "Another aggregator writes to" in locked.stderr
    assert "Traceback" not in ended.stderr + locked.stderr


@pytest.mark.parametrize(
    "hello",
    [
        codec.encode(messages.hello("clinic-1", epoch=EPOCH + "\n")),
        codec.encode(messages.hello("clinic-2")),
        b'{"device":1,"z":' + b"[" * 5000,
    ],
)
def test_a_hello_that_would_be_quarantined_is_none_and_the_other_files_go_on(place: Place, hello: bytes) -> None:
    device = place.device()
    device.record(1)
    good, bad = place.export(device), place.stick / "bad"
    relay = load_config(device.config).relay
    signer, writer = load_identity(Path(relay.certificate), Path(relay.private_key)), FrameWriter()
    with bad.open("wb") as file:
        pieces = [writer.add(Frame(Channel.HELLO, hello)), writer.finish()]
        seal(file, "outcomes", signer, load_certificate(place.files.cert), pieces)
    database = f"sqlite:///{place.folder}/centre.db"
    keys = ("--ca", place.authority.ca, "--cert", place.files.cert, "--key", place.files.key)
    ended = call("broker.cli", "import", bad, good, "--db", database, *keys)
    assert ended.returncode == 1
    assert "does not begin with the hello of the device" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert stored(database) == [("clinic-1", 1)]


def test_receipts_and_their_name_are_on_the_disk(place: Place, store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    device, forced = place.device(), []
    device.record(1)
    path = place.export(device)
    monkeypatch.setattr("broker.usb.fsync_folder", lambda folder: forced.append((folder, sorted(os.listdir(folder)))))
    receipts = place.take(path, Settler(store))
    assert forced == [(place.stick, sorted([path.name, receipts.name]))]


def test_names_of_files_say_nothing_about_patients(place: Place, store: MemoryStore) -> None:
    device = place.device()
    device.record(1)
    path = place.export(device)
    receipts = place.take(path, Settler(store))
    with contextlib.closing(device.outbox()) as outbox:
        epoch = outbox.epoch[:8]
    assert {path.name, receipts.name} == {f"cxr-outcomes-clinic-1-{epoch}-1.sealed", f"cxr-receipts-clinic-1-{epoch}-1.sealed"}
    assert sorted(os.listdir(place.stick)) == sorted([path.name, receipts.name])


def _own_tls(device: Remote) -> dict[str, object]:
    relay = load_config(device.config).relay
    return {"certificate": relay.certificate, "private_key": relay.private_key}


def _folder(path: Path) -> Path:
    path.mkdir()
    return path
