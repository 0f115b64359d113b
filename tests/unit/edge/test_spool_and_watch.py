import os
import threading
import time

import pytest

from edge.config import Watch
from edge.spool import Spool
from edge.watch import FolderWatch


@pytest.fixture
def place(tmp_path):
    (tmp_path / "inbox").mkdir()
    return tmp_path


@pytest.fixture
def spool(place):
    return Spool(place / "state")


@pytest.fixture
def watch(place, spool):
    watch = FolderWatch(Watch(folder=str(place / "inbox"), settle_s=0.05, rescan_s=0.1), spool)
    yield watch
    watch.close()


def names(spool):
    return sorted(intake.original_name for intake in spool.pending())


def test_a_file_that_is_closed_or_moved_in_is_taken(place, spool, watch):
    (place / "inbox/closed.png").write_bytes(b"1")
    (place / "elsewhere.png").write_bytes(b"2")
    os.rename(place / "elsewhere.png", place / "inbox/moved.png")
    assert watch.run_once(1.0) == 2
    assert names(spool) == ["closed.png", "moved.png"]
    assert not list((place / "inbox").iterdir())


def test_a_half_written_file_waits_for_its_end(place, spool, watch):
    with (place / "inbox/slow.png").open("wb") as file:
        file.write(b"first half")
        file.flush()
        assert watch.run_once(0.1) == 0
        assert watch.rescan() == 0
        time.sleep(0.1)
        assert watch.rescan() == 0, "it has not changed for long enough, but someone still has it open for writing"
        file.write(b"second half")
    assert watch.run_once(1.0) == 1
    assert spool.pending()[0].path.read_bytes() == b"first halfsecond half"


def test_files_that_gave_no_event_are_found_once_they_are_quiet(place, spool):
    (place / "inbox/before.png").write_bytes(b"1")
    watch = FolderWatch(Watch(folder=str(place / "inbox"), settle_s=0.05), spool)
    assert watch.rescan() == 0
    (place / "inbox/before.png").write_bytes(b"12")
    time.sleep(0.06)
    assert watch.rescan() == 0, "it changed since the last look"
    time.sleep(0.06)
    assert watch.rescan() == 1
    watch.close()


def test_unfinished_names_links_and_folders_are_left_alone(place, spool, watch):
    for name in (".hidden", "a.part", "b.TMP", "c.crdownload"):
        (place / "inbox" / name).write_bytes(b"1")
    (place / "inbox/folder").mkdir()
    os.symlink("/etc/hostname", place / "inbox/link.png")
    os.mkfifo(place / "inbox/pipe.png")
    assert watch.run_once(0.2) == 0
    watch.rescan()
    time.sleep(0.1)
    assert watch.rescan() == 0
    os.rename(place / "inbox/a.part", place / "inbox/a.png")
    assert watch.run_once(1.0) == 1


def test_a_name_of_any_bytes_is_taken_and_comes_back(place, spool, watch):
    for name in (b"\xff\xfe.png", "Ümlaut ~ tilde.png".encode(), b"x" * 250 + b".png", b"new\nline.png"):
        (place / "inbox" / os.fsdecode(name)).write_bytes(name)
    watch.run_once(1.0)
    pending = spool.pending()
    assert len(pending) == 4
    assert {intake.path.read_bytes() for intake in pending} == {
        b"\xff\xfe.png",
        "Ümlaut ~ tilde.png".encode(),
        b"x" * 250 + b".png",
        b"new\nline.png",
    }
    assert "Ümlaut ~ tilde.png" in names(spool)


def test_a_folder_that_goes_away_is_an_error_that_a_person_sees(place, spool, watch):
    os.rmdir(place / "inbox")
    with pytest.raises(OSError, match="removed or unmounted"):
        watch.run_once(1.0)
    with pytest.raises(FileNotFoundError):
        watch.rescan()


def test_an_intake_that_is_repeated_after_a_crash_keeps_its_id(place, spool, monkeypatch):
    """Across file systems a crash can leave the copy in the spool and the original in the folder."""
    path = place / "inbox/a.png"
    path.write_bytes(b"picture")
    real = os.rename

    def other_file_system(source, target):
        if str(source) == str(path):
            raise OSError(18, "Invalid cross-device link")
        real(source, target)

    monkeypatch.setattr(os, "rename", other_file_system)
    kept = []
    monkeypatch.setattr(os, "unlink", kept.append)
    first = spool.admit(path)
    monkeypatch.undo()
    monkeypatch.setattr(os, "rename", other_file_system)
    second = spool.admit(path)
    assert kept == [path]
    assert first == second
    assert len(spool.pending()) == 1
    assert not path.exists()


def test_a_file_that_is_half_copied_across_file_systems_is_no_intake(place, spool, monkeypatch):
    (place / "inbox/a.png").write_bytes(b"picture")
    real = os.rename

    def other_file_system(source, target):
        if "inbox" in str(source):
            raise OSError(18, "Invalid cross-device link")
        real(source, target)

    monkeypatch.setattr(os, "rename", other_file_system)
    seen = []
    monkeypatch.setattr("shutil.copyfileobj", lambda read, write, size: seen.append(spool.pending()))
    spool.admit(place / "inbox/a.png")
    assert seen == [[]]


def test_the_same_name_and_bytes_put_there_twice_are_two_intakes(place, spool):
    ids = set()
    for _ in range(2):
        (place / "inbox/a.png").write_bytes(b"picture")
        intake = spool.admit(place / "inbox/a.png")
        ids.add(intake.id)
        spool.settle(intake, answered=True)
    assert len(ids) == 2


def test_settled_files_bear_no_senders_name_and_settling_twice_is_fine(place, spool):
    (place / "inbox/Jane Doe 1970.dcm").write_bytes(b"1")
    intake = spool.admit(place / "inbox/Jane Doe 1970.dcm")
    target = spool.settle(intake, answered=False)
    assert spool.settle(intake, answered=False) == target
    assert target.parent == spool.aside
    assert "Doe" not in target.name
    assert target.suffix == ".dcm"
    assert target.read_bytes() == b"1"


def test_only_answered_pictures_are_removed_for_room_the_oldest_first(place, spool):
    for number in range(6):
        path = place / f"inbox/{number}.png"
        path.write_bytes(b"x" * 100)
        os.utime(path, (number, number))
        spool.settle(spool.admit(path), answered=number < 4)
    assert spool.trim_done(250) == 2
    assert sorted(os.stat(p).st_mtime for p in spool.done.iterdir()) == [2, 3]
    assert len(list(spool.aside.iterdir())) == 2


def test_the_oldest_is_answered_first(place, spool):
    for name, age in (("new.png", 10), ("old.png", 1)):
        path = place / "inbox" / name
        path.write_bytes(b"1")
        os.utime(path, (age, age))
        spool.admit(path)
    assert [intake.original_name for intake in spool.pending()] == ["old.png", "new.png"]


def test_many_files_at_once_from_many_writers(place, spool, watch):
    def write(start):
        for number in range(start, start + 25):
            (place / f"inbox/{number}.png").write_bytes(b"x" * 2000)

    threads = [threading.Thread(target=write, args=(100 * n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 10
    while len(spool.pending()) < 100 and time.monotonic() < deadline:
        watch.run_once(0.1)
    for thread in threads:
        thread.join()
    assert len(spool.pending()) == 100
