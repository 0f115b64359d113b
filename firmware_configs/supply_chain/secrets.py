"""Keys, PINs, passwords and enrolment files in what is handed on: folders, wheels and tars are looked into, also one in another.

What is looked for is what this project has (PEM private keys, site keys and their paper, enrolment and sealed files, PINs), and
what people write into an image by mistake: a password or its hash, the key of a Wi-Fi.
"""

from __future__ import annotations

import io
import lzma
import re
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_CONTENT = {
    "a private key": re.compile(rb"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY-----\s+[A-Za-z0-9+/=]{16}"),
    "an enrolment or sealed file": re.compile(rb"\ACXR (?:enrolment|sealed file) \d"),
    "a site key": re.compile(rb"(?m)^[0-9a-f]{64}(?: \d{4}-\d\d-\d\d)?\r?$"),
    "the paper of a site key": re.compile(rb"(?m)^ ?\d{1,3}[ :.)]+[0-9A-HJKMNP-TV-Z]{4}(?: [0-9A-HJKMNP-TV-Z]{4}){3}\r?$"),
    "the hash of a password": re.compile(rb"\$(?:[156y]|2[aby])\$[./A-Za-z0-9$,=]{20,}"),
    "a password": re.compile(rb"(?im)^[ \t]*(?:plain_text_passwd|password|wpa_passphrase|psk)\s*[:=]\s*[\"']?[^\s\"'$<{#]{6,}"),
}
_NAMES = {
    "a PIN": re.compile(r".*\.pin"),
    "a key": re.compile(r".*\.key|id_(?:rsa|dsa|ecdsa|ed25519)"),
    "an enrolment file": re.compile(r".*\.enrol(?:ment)?"),
    "the words or the code of an enrolment": re.compile(r".*(?:enrol|recovery).*\.(?:txt|html|pdf|csv)"),
}
_DEEPEST = 4


def secrets_in(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (place, what it is) of each secret in a file, a folder, or an archive of either.

    Raises:
        OSError: if something cannot be read.
    """
    if path.is_dir():
        for inner in sorted(path.rglob("*")):
            if inner.is_file() and "__pycache__" not in inner.parts:
                yield from _look(str(inner), inner.read_bytes(), 0)
    else:
        yield from _look(str(path), path.read_bytes(), 0)


def _look(place: str, content: bytes, depth: int) -> Iterator[tuple[str, str]]:
    name = PurePosixPath(place).name
    for what, pattern in _NAMES.items():
        if content.strip() and pattern.fullmatch(name):
            yield place, what
    for what, wanted in _CONTENT.items():
        if wanted.search(content):
            yield place, what
    if depth < _DEEPEST:
        for inner, member in _members(content):
            yield from _look(f"{place}!{inner}", member, depth + 1)


def _members(content: bytes) -> Iterator[tuple[str, bytes]]:
    if content.startswith(b"PK\x03\x04"):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for info in archive.infolist():
                if not info.is_dir():
                    yield info.filename, archive.read(info)
    elif content[257:262] == b"ustar" or content.startswith((b"\x1f\x8b", b"\xfd7zXZ", b"BZh")):
        try:
            with tarfile.open(fileobj=io.BytesIO(content)) as tar:
                for member in tar:
                    file = tar.extractfile(member) if member.isfile() else None
                    if file is not None:
                        yield member.name, file.read()
        except (tarfile.TarError, lzma.LZMAError, EOFError, OSError):
            return  # compressed and no tar, or cut short: what came before was looked at
