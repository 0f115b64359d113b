"""The order of calls that makes a small file survive a power cut."""

from __future__ import annotations

import os
import stat

from edge.durable import write_durably


def test_content_then_name_then_folder_are_forced_in_that_order(tmp_path, monkeypatch):
    done = []
    fsync, rename = os.fsync, os.rename

    def forced(handle):
        done.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else f"file of {os.fstat(handle).st_size} bytes")
        fsync(handle)

    def renamed(old, new):
        done.append("name")
        rename(old, new)

    monkeypatch.setattr(os, "fsync", forced)
    monkeypatch.setattr(os, "rename", renamed)
    (tmp_path / "request.part").write_text("left by a write that was cut off")
    write_durably(tmp_path / "request.json", b"content")
    assert done == ["file of 7 bytes", "name", "folder"]
    assert [path.name for path in tmp_path.iterdir()] == ["request.json"]
    assert (tmp_path / "request.json").read_bytes() == b"content"
    write_durably(tmp_path / "other.json", b"")
    assert stat.S_IMODE((tmp_path / "other.json").stat().st_mode) == 0o600


def test_a_link_that_lies_where_it_writes_leads_nowhere(tmp_path):
    (tmp_path / "theirs").write_text("theirs")
    (tmp_path / "site.part").symlink_to(tmp_path / "theirs")
    write_durably(tmp_path / "site.key", b"content")
    assert (tmp_path / "theirs").read_text() == "theirs"
    assert not (tmp_path / "site.key").is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["site.key", "theirs"]


def test_a_left_over_costs_one_call_more_and_none_costs_nothing(tmp_path, monkeypatch):
    done = []
    unlink = os.unlink
    monkeypatch.setattr(os, "unlink", lambda path: (done.append(path), unlink(path)))
    write_durably(tmp_path / "request.json", b"content")
    assert not done
    (tmp_path / "request.part").touch()
    write_durably(tmp_path / "request.json", b"content")
    assert done == [tmp_path / "request.part"]
