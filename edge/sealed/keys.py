"""Certificates and keys for sealed files: who signs, who can read. Every primitive is that of the library `cryptography`.

Signatures are ECDSA or RSA-PSS with SHA-256; a content key is wrapped by HPKE (RFC 9180) for a P-256 key, by RSA-OAEP for RSA.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, hpke, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

MAGIC = b"CXR sealed file 1\n"
"""What a sealed file begins with; also the context of every signature and wrapped key, so that none fits anywhere else."""

_SUITE = hpke.Suite(hpke.KEM.P256, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
_OAEP = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), MAGIC)
_PSS = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH)

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey
PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


class Unsealable(Exception):
    """The file, a certificate or a key cannot be used; the text says why, as the end of a sentence."""


@dataclass(frozen=True)
class Identity:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: PrivateKey


def load_identity(certificate: Path, key: Path) -> Identity:
    """Read a certificate and its private key from PEM files.

    Raises:
        Unsealable: if they cannot be read, do not belong together, or are of a kind that cannot be used.
    """
    read = load_certificate(certificate)
    try:
        private = serialization.load_pem_private_key(key.read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        raise Unsealable(f"{key} is no readable private key ({error})") from None
    if not isinstance(private, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) or private.public_key() != public_key(read):
        raise Unsealable(f"{key} is not the key of {certificate}")
    return Identity(read, private)


def load_certificate(path: Path) -> x509.Certificate:
    """Read a certificate from a PEM file.

    Raises:
        Unsealable: if it cannot be read, or its key is neither P-256 nor RSA of at least 2048 bits.
    """
    try:
        read = x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        raise Unsealable(f"{path} is no readable certificate ({error})") from None
    public_key(read)
    return read


def public_key(certificate: x509.Certificate) -> PublicKey:
    """Return the key in a certificate, if it is of a kind that can be used; else raise Unsealable."""
    try:
        key = certificate.public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None  # of a kind that the library does not know
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
        return key
    if isinstance(key, rsa.RSAPublicKey) and key.key_size >= 2048:
        return key
    raise Unsealable("a certificate has a key that is neither P-256 nor RSA of at least 2048 bits")


def fingerprint(certificate: x509.Certificate) -> bytes:
    """Return the SHA-256 of a certificate's public key."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return hashlib.sha256(certificate.public_key().public_bytes(serialization.Encoding.DER, form)).digest()


def wrap(reader: PublicKey, key: bytes) -> bytes:
    """Return a content key so that only the holder of the private key can read it."""
    if isinstance(reader, rsa.RSAPublicKey):
        return reader.encrypt(key, _OAEP)
    return _SUITE.encrypt(key, reader, MAGIC)


def unwrap(reader: PrivateKey, wrapped: bytes) -> bytes:
    """Return a wrapped content key of 32 bytes; raise Unsealable if this key cannot open it."""
    try:
        key = reader.decrypt(wrapped, _OAEP) if isinstance(reader, rsa.RSAPrivateKey) else _SUITE.decrypt(wrapped, reader, MAGIC)
    except (ValueError, InvalidTag):
        key = b""
    if len(key) != 32:
        raise Unsealable("its key cannot be opened")
    return key


def sign(key: PrivateKey, message: bytes) -> bytes:
    """Return a signature over `message`."""
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(message, _PSS, hashes.SHA256())
    return key.sign(message, ec.ECDSA(hashes.SHA256()))


def verify(key: PublicKey, signature: bytes, message: bytes) -> None:
    """Raise Unsealable if `signature` is not that of `key` over `message`."""
    try:
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, message, _PSS, hashes.SHA256())
        else:
            key.verify(signature, message, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        raise Unsealable("it was cut or changed: the signature does not fit") from None
