"""A test film is known to be one, and nothing else is."""

from hypothesis import given
from hypothesis import strategies as st

from edge.config import Decode
from edge.infer.specimen import is_specimen, new_uid, write_specimen
from edge.network.manifest import SHIPPED
from edge.pixels.decode import Limits, decode_file
from edge.privacy.pseudonym import SiteKey, chain

KEYS = st.binary(min_size=32, max_size=32).map(SiteKey)


@given(KEYS, KEYS)
def test_only_who_has_the_key_can_make_one(key, other):
    uid = new_uid(key)
    assert len(uid) <= 62, "room for a suffix"
    assert is_specimen(key, uid)
    assert is_specimen(other, uid) == (other == key)


@given(KEYS, KEYS)
def test_it_is_one_whichever_side_knows_of_a_new_key_first(key, newer):
    both = chain([newer, key])
    assert is_specimen(key, new_uid(both))
    assert is_specimen(both, new_uid(key))
    assert is_specimen(both, new_uid(both))


UIDS = st.one_of(st.none(), st.text(), st.integers(0, 2**128 - 1).map("2.25.{}".format), st.from_regex(r"[0-2](\.\d{1,20}){1,4}"))


@given(KEYS, UIDS)
def test_no_other_object_is_taken_for_one(key, uid):
    assert not is_specimen(key, uid)


@given(KEYS)
def test_another_spelling_is_none(key):
    uid = new_uid(key)
    for odd in (uid + "0", uid.replace("2.25.", "2.25.0"), uid + "\n", f" {uid}", uid.replace("2.25.", "")):
        assert not is_specimen(key, odd)


def test_the_film_is_read_like_any_other_and_says_whom_it_shows(tmp_path):
    uid = new_uid(SiteKey(bytes(32)))
    write_specimen(tmp_path / "film.dcm", uid, SHIPPED / "golden/clear.pgm")
    limits = Decode()
    picture = decode_file(tmp_path / "film.dcm", Limits(limits.max_file_mb * 2**20, limits.max_megapixels * 10**6))
    assert picture.headers.sop_instance_uid == uid
    assert picture.headers.patient_name == "TEST^FILM"
    assert picture.image.size == (512, 512)
