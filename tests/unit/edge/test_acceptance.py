"""The test film that root puts into the watched folder, where the processes of the device may lay what they like."""

import stat

import pytest

from edge.commands.acceptance import into_folder
from edge.config import Device, Watch
from edge.errors import CxrError


@pytest.fixture
def send(tmp_path):
    (tmp_path / "inbox").mkdir()
    (tmp_path / "film").write_bytes(b"film")
    (tmp_path / "theirs").write_bytes(b"theirs")
    (tmp_path / "theirs").chmod(0o600)
    folder = str(tmp_path / "inbox")
    return into_folder(Device(device="clinic-1", facility="Clinic", state="s", site_key="k", watch=Watch(folder=folder)))


def test_the_film_lies_there_for_everyone_to_read(tmp_path, send):
    assert send(tmp_path / "film", "1.2.3") == "cxr-test-3.dcm"
    [film] = (tmp_path / "inbox").iterdir()
    assert (film.name, film.read_bytes(), stat.S_IMODE(film.stat().st_mode)) == ("cxr-test-3.dcm", b"film", 0o644)


@pytest.mark.parametrize("hard", [False, True])
def test_a_link_that_lies_where_it_is_written_leads_nowhere(tmp_path, send, hard):
    part = tmp_path / "inbox/.cxr-test-3.dcm.part"
    (part.hardlink_to if hard else part.symlink_to)(tmp_path / "theirs")
    with pytest.raises(CxrError, match="takes no file"):
        send(tmp_path / "film", "1.2.3")
    assert (tmp_path / "theirs").read_bytes() == b"theirs"
    assert stat.S_IMODE((tmp_path / "theirs").stat().st_mode) == 0o600


def test_what_is_not_written_whole_is_taken_away(tmp_path, send):
    with pytest.raises(CxrError, match="takes no file"):
        send(tmp_path / "none", "1.2.3")
    assert not list((tmp_path / "inbox").iterdir())
