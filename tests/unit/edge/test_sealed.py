"""A sealed file: whole or refused, and readable by one reader only."""

import hashlib
import io
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.sealed.file import CHUNK, open_sealed, seal
from edge.sealed.keys import Unsealable, load_certificate, load_identity
from tests.support.authority import Authority


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    authority = Authority(tmp_path_factory.mktemp("ca"))
    return {
        name: load_identity(files.cert, files.key)
        for name, files in (
            ("device", authority.client("clinic-1")),
            ("device_rsa", authority.client("clinic-2", by_rsa=True)),
            ("centre", authority.server("centre")),
            ("centre_rsa", authority.client("centre-rsa", by_rsa=True)),
        )
    }


def written(people, pieces, sender="device", reader="centre"):
    file = io.BytesIO()
    seal(file, "outcomes", people[sender], people[reader].certificate, pieces)
    return file.getvalue()


def read(people, content, reader="centre"):
    return b"".join(open_sealed(io.BytesIO(content)).content(people[reader]))


@pytest.mark.parametrize("sender", ["device", "device_rsa"])
@pytest.mark.parametrize("reader", ["centre", "centre_rsa"])
@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK])
def test_what_is_sealed_comes_back(people, sender, reader, size):
    content = hashlib.shake_128(b"x").digest(size)
    sealed = written(people, [content[:7], content[7:]], sender, reader)
    opened = open_sealed(io.BytesIO(sealed))
    assert opened.sender == people[sender].certificate
    assert opened.kind == "outcomes"
    assert b"".join(opened.content(people[reader])) == content
    assert content[:32] not in sealed or size < 32


@pytest.fixture(scope="module")
def sealed(people):
    return written(people, [b"outcome " * 20_000])


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")  # of a certificate that was changed
@settings(max_examples=300)
@given(
    # Near the head, near the signature, and anywhere.
    place=st.one_of(st.integers(0, 900), st.integers(-100, -1), st.integers(0, 160_000)),
    how=st.sampled_from(["cut", "flip", "add", "drop"]),
    bits=st.integers(1, 255),
)
def test_a_file_that_was_cut_changed_or_added_to_is_refused_before_anything_is_read(sealed, place, how, bits):
    place %= len(sealed)
    before, byte, after = sealed[:place], sealed[place], sealed[place + 1 :]
    changed = {"cut": before, "flip": before + bytes([byte ^ bits]) + after, "add": sealed + before + b"x", "drop": before + after}[
        how
    ]
    with pytest.raises(Unsealable):
        open_sealed(io.BytesIO(changed))


@given(st.binary(max_size=300))
def test_any_other_file_is_refused(content):
    for start in (b"", b"CXR sealed file 1\n", b"CXR sealed file 1\n\0\0\0\x02{}"):
        with pytest.raises(Unsealable):
            open_sealed(io.BytesIO(start + content))


def test_nobody_else_can_read_it(people, sealed):
    for stranger in ("device", "device_rsa", "centre_rsa"):
        with pytest.raises(Unsealable, match="written for somebody else"):
            read(people, sealed, stranger)


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")  # of a certificate that was changed
def test_each_changed_byte_of_the_certificate_is_a_refusal_and_no_traceback(sealed):
    for place in range(18, 1200):
        for bits in (1, 4, 16):
            with pytest.raises(Unsealable):
                open_sealed(io.BytesIO(sealed[:place] + bytes([sealed[place] ^ bits]) + sealed[place + 1 :]))


def test_chunks_of_another_file_by_the_same_device_do_not_fit(people):
    """Signed anew by the device itself, so that only the encryption can tell."""
    from edge.sealed import file as module

    first, second = (open_sealed(io.BytesIO(written(people, [letter * 3 * CHUNK]))) for letter in (b"a", b"b"))
    start = len(module.MAGIC) + 4 + len(first.head)
    content, other = bytes(first.file.getbuffer()[: first.end]), bytes(second.file.getbuffer())
    head, chunk = content[:start], 4 + CHUNK + 16
    one, two, rest = content[start : start + chunk], content[start + chunk : start + 2 * chunk], content[start + 2 * chunk :]
    for changed in (
        other[start : start + chunk] + two + rest,
        two + one + rest,
        bytes([0x80 | one[0]]) + one[1:],  # the first called the last
    ):
        body = head + changed
        signed = body + module.sign(people["device"].key, module.MAGIC + hashlib.sha256(body).digest())
        with pytest.raises(Unsealable, match="its content was changed"):
            read(people, signed)


def test_memory_does_not_grow_with_the_file(people, tmp_path):
    with (tmp_path / "large").open("wb") as file:
        seal(file, "outcomes", people["device"], people["centre"].certificate, (b"x" * 1000 for _ in range(20_000)))
    tracemalloc.start()
    with (tmp_path / "large").open("rb") as file:
        assert sum(len(piece) for piece in open_sealed(file).content(people["centre"])) == 20_000_000
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 2_000_000


def test_files_that_are_no_keys_are_told_apart(tmp_path):
    authority = Authority(tmp_path / "ca")
    one, other = authority.client("clinic-1"), authority.client("clinic-2")
    with pytest.raises(Unsealable, match="is not the key of"):
        load_identity(one.cert, other.key)
    with pytest.raises(Unsealable, match="no readable private key"):
        load_identity(one.cert, one.cert)
    with pytest.raises(Unsealable, match="no readable certificate"):
        load_certificate(one.key)
    with pytest.raises(Unsealable, match="no readable certificate"):
        load_certificate(tmp_path / "none")
