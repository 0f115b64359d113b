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
