"""A device's private key and certificate, in one file: are they those of this device, and of this authority?"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


class Unfit(Exception):
    """A certificate is not for this device; the text says why, as the end of a sentence."""


@dataclass(frozen=True)
class KeyPair:
    """A new private key, and the request that asks for a certificate for it."""

    key: ec.EllipticCurvePrivateKey
    request: str


def new_key_pair(device: str) -> KeyPair:
    """Make a P-256 key and a signed request (PKCS 10, PEM) under the name of the device."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, device)])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return KeyPair(key, request.public_bytes(serialization.Encoding.PEM).decode("ascii"))


def identity_pem(key: ec.EllipticCurvePrivateKey, certificate: str) -> bytes:
    """Return the content of the device's file: key, then certificate."""
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()) + certificate.encode("ascii")


def require_fit(certificate: str, public: ec.EllipticCurvePublicKey, device: str, authority: bytes) -> datetime:
    """Check that a certificate (PEM) is for a key, names a device, and was issued for TLS clients by an authority (PEM).

    Returns:
        Until when it is good.

    Raises:
        Unfit: saying what does not fit.
    """
    try:  # what is malformed inside shows only when it is looked at
        read = x509.load_pem_x509_certificate(certificate.encode("ascii"))
        roots = x509.load_pem_x509_certificates(authority)
        key = read.public_key()
        names = [str(name.value) for name in read.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    except Exception:  # whatever the parser raises
        raise Unfit("it cannot be read") from None
    if key != public:
        raise Unfit("it is for another key")
    if names != [device]:
        raise Unfit(f"it is for {' and '.join(names) or 'nobody'}")
    if not any(_issued(read, root) for root in roots):
        raise Unfit("another authority has made it")
    try:
        usages = read.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except Exception:  # there is none, or it is malformed
        usages = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING])
    if ExtendedKeyUsageOID.CLIENT_AUTH not in usages:
        raise Unfit("it is not for a device")
    return read.not_valid_after_utc


def require_whole(identity: str, device: str, authority: str) -> datetime:
    """Check a key and its certificate in one text; return until when it is good. Raises Unfit if they do not belong together."""
    try:
        key = serialization.load_pem_private_key(identity.encode("ascii"), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise Unfit("its key cannot be read") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise Unfit("its key is of another kind")
    return require_fit(identity, key.public_key(), device, authority.encode("ascii"))


def _issued(certificate: x509.Certificate, root: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(root)
    except Exception:  # another's, or malformed
        return False
    return True
