import errno
import hashlib
import os
import threading
import time

import pytest

from edge.config import Watch
from edge.infer.local import LocalFacts, LocalStore
from edge.intake.spool import LEAST_FREE, Spool
from edge.intake.watch import FolderWatch, watch_forever


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
    Spool(spool.incoming.parent, lambda: seen.append(spool.pending())).admit(place / "inbox/a.png")
    assert seen == [[]]


def test_the_same_name_and_bytes_put_there_twice_are_two_intakes(place, spool):
    ids = set()
    for _ in range(2):
        (place / "inbox/a.png").write_bytes(b"picture")
        intake = spool.admit(place / "inbox/a.png")
        ids.add(intake.id)
        spool.settle(intake, spool.place(intake.id, intake.original_name, answered=True))
    assert len(ids) == 2


def test_settled_files_bear_no_senders_name_and_settling_twice_is_fine(place, spool):
    (place / "inbox/Jane Doe 1970.dcm").write_bytes(b"1")
    intake = spool.admit(place / "inbox/Jane Doe 1970.dcm")
    put = spool.place(intake.id, intake.original_name, answered=False)
    target = spool.settle(intake, put)
    assert spool.settle(intake, put) == target
    assert target.parent == spool.aside
    assert "Doe" not in target.name
    assert target.suffix == ".dcm"
    assert target.read_bytes() == b"1"


def settle_six(place, spool):
    """Six files, each with an older time than the one before, as a sender that keeps times may do; the last two go aside."""
    for number in range(6):
        path = place / f"inbox/{number}.png"
        path.write_bytes(b"%d" % number * 100)
        os.utime(path, (100 - number, 100 - number))
        intake = spool.admit(path)
        spool.settle(intake, spool.place(intake.id, intake.original_name, answered=number < 4))


def test_only_answered_pictures_are_removed_for_room_the_oldest_first(place, spool):
    settle_six(place, spool)
    assert spool.trim_done(250) == 2
    assert sorted(path.read_bytes()[:1] for path in spool.done.iterdir()) == [b"2", b"3"]
    assert len(list(spool.aside.iterdir())) == 2


def test_what_came_last_goes_last_though_the_clock_went_back(place, spool, monkeypatch):
    settle_six(place, spool)
    monkeypatch.setattr("time.time_ns", lambda: 1_000)  # 1970, after a power cut: another process, too
    again = Spool(place / "state")
    (place / "inbox/new.png").write_bytes(b"n" * 100)
    again.settle(again.admit(place / "inbox/new.png"), "done/new.png")
    assert again.trim_done(100) == 4
    assert [path.read_bytes()[:1] for path in again.done.iterdir()] == [b"n"]


def test_the_names_of_the_newest_are_kept_though_the_clock_went_back(tmp_path, monkeypatch):
    LocalStore(tmp_path).write("aa", LocalFacts(patient_name="Old"))
    monkeypatch.setattr("time.time_ns", lambda: 1_000)
    store = LocalStore(tmp_path)
    store.write("bb", LocalFacts(patient_name="New"))
    assert store.trim(1) == 1
    assert (store.read("aa").patient_name, store.read("bb").patient_name) == (None, "New")


@pytest.fixture
def elsewhere(place, monkeypatch):
    """The inbox as a file system of its own."""
    real = os.rename

    def other_file_system(source, target):
        if "inbox" in str(source):
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        real(source, target)

    monkeypatch.setattr(os, "rename", other_file_system)
    return place / "inbox"


def test_what_is_too_large_on_another_file_system_stays_there_and_others_are_taken(elsewhere, spool, caplog):
    watch = FolderWatch(Watch(folder=str(elsewhere)), spool, max_bytes=1000)
    (elsewhere / "a.png").write_bytes(b"x" * 1001)
    (elsewhere / "b.png").write_bytes(b"x" * 1000)
    assert watch.run_once(1.0) == 1
    watch.close()
    assert names(spool) == ["b.png"]
    assert "File too large" in caplog.text
    assert [path.name for path in elsewhere.iterdir()] == ["a.png"]


@pytest.mark.parametrize("moment", ["before", "while"])
def test_a_copy_that_finds_no_room_leaves_nothing_behind(elsewhere, spool, monkeypatch, moment):
    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    (elsewhere / "a.png").write_bytes(b"picture")
    if moment == "before":
        monkeypatch.setattr("edge.intake.spool.free_bytes", lambda folder: LEAST_FREE + 6)
    else:
        monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        spool.admit(elsewhere / "a.png")
    assert list(spool.incoming.iterdir()) == []
    monkeypatch.undo()
    spool.admit(elsewhere / "a.png")
    assert names(spool) == ["a.png"]


def test_what_could_not_be_removed_from_its_folder_is_not_copied(elsewhere, spool, monkeypatch):
    (elsewhere / "a.png").write_bytes(b"picture")
    monkeypatch.setattr(os, "access", lambda folder, mode: False)  # root may write everywhere
    with pytest.raises(PermissionError):
        spool.admit(elsewhere / "a.png")
    assert list(spool.incoming.iterdir()) == []


def test_half_copies_of_a_process_that_ended_are_removed(spool):
    (spool.incoming / ".0a1b.part").write_bytes(b"half")
    (spool.incoming / "0a1b~a.png").write_bytes(b"whole")
    spool.remove_half_copied()
    assert [path.name for path in spool.incoming.iterdir()] == ["0a1b~a.png"]


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


def test_a_large_file_is_progress_piece_by_piece(place, spool, monkeypatch):
    told = []
    spool = Spool(spool.incoming.parent, lambda: told.append(True))
    (place / "inbox/large.png").write_bytes(bytes(20 << 20))
    intake = spool.admit(place / "inbox/large.png")
    assert not told, "a rename is no work"
    assert spool.make_durable(intake) == hashlib.sha256(bytes(20 << 20)).hexdigest()
    assert len(told) >= 20
    told.clear()
    (place / "inbox/large.png").write_bytes(bytes(20 << 20))
    real = os.rename

    def other_file_system(source, target):
        if "inbox" in str(source):
            raise OSError(18, "Invalid cross-device link")
        real(source, target)

    monkeypatch.setattr(os, "rename", other_file_system)
    assert spool.admit(place / "inbox/large.png").path.stat().st_size == 20 << 20
    assert len(told) >= 5


def test_what_came_while_nobody_watched_is_taken_when_it_has_settled(place, spool):
    (place / "inbox/a.png").write_bytes(b"picture")
    settings = Watch(folder=str(place / "inbox"), settle_s=0.2, rescan_s=60.0)
    watch = FolderWatch(settings, spool)
    until = time.monotonic() + 10

    class Stop:
        def is_set(self):
            return bool(spool.pending()) or time.monotonic() > until

    watch_forever(watch, settings, Stop())
    watch.close()
    assert names(spool) == ["a.png"]


@pytest.mark.parametrize("how", ["grows", "is written over"])
def test_what_changes_while_it_is_copied_stays_for_the_next_round(elsewhere, spool, monkeypatch, how):
    film = elsewhere / "a.png"
    film.write_bytes(b"first half")
    force = os.fsync

    def written_meanwhile(handle):
        monkeypatch.setattr(os, "fsync", force)
        force(handle)
        with film.open("r+b") as file:
            file.seek(0, os.SEEK_END if how == "grows" else os.SEEK_SET)
            file.write(b"other half")

    monkeypatch.setattr(os, "fsync", written_meanwhile)
    with pytest.raises(BlockingIOError):
        spool.admit(film)
    assert list(spool.incoming.iterdir()) == []
    assert film.read_bytes().endswith(b"other half")
    spool.admit(film)
    assert spool.pending()[0].path.read_bytes().endswith(b"other half")


def test_what_changes_while_it_is_copied_is_no_error_that_is_told(elsewhere, spool, monkeypatch, caplog):
    def busy(path, max_bytes):
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(spool, "admit", busy)
    watch = FolderWatch(Watch(folder=str(elsewhere)), spool)
    (elsewhere / "a.png").write_bytes(b"x")
    assert watch.run_once(1.0) == 0
    watch.close()
    assert not caplog.records


def test_a_file_of_another_user_has_to_be_quiet_for_longer(place, spool, monkeypatch):
    """The system tells only a file's owner, or root, whether someone has it open."""

    def refused(handle, command, argument):
        raise PermissionError(errno.EACCES, "Permission denied")

    clock = [100.0]
    (place / "inbox/a.png").write_bytes(b"x")
    monkeypatch.setattr("edge.intake.watch.fcntl.fcntl", refused)
    monkeypatch.setattr("edge.intake.watch.time.monotonic", lambda: clock[0])
    watch = FolderWatch(Watch(folder=str(place / "inbox"), settle_s=2.0), spool)
    taken = []
    for clock[0] in (100.0, 102.1, 105.9, 106.1):
        taken.append(watch.rescan())
    watch.close()
    assert taken == [0, 0, 0, 1]
