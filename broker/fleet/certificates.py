"""Making certificates and revocation lists: X.509 with P-256 keys and SHA-256. Knows no files, no clock and no fleet."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LONG = timedelta(days=30 * 365)
"""How long the authority and the servers are good for: a whole fleet must not stop because a date came."""

_ROOT_BACKDATED = timedelta(days=365)
"""All certificates begin so long before the authority was made: a device whose clock is slow must not refuse the centre."""


@dataclass(frozen=True)
class Maker:
    """An authority's certificate and key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def client(self, name: str, key: ec.EllipticCurvePublicKey, now: datetime, lasts: timedelta) -> x509.Certificate:
        """Return a certificate for a TLS client of that name, good until `now + lasts`."""
        return self._issue(name, key, ExtendedKeyUsageOID.CLIENT_AUTH, (), now, lasts)

    def server(self, name: str, key: ec.EllipticCurvePublicKey, hosts: Sequence[str], now: datetime) -> x509.Certificate:
        """Return a certificate for a TLS server that is reached under `hosts`, names or addresses."""
        return self._issue(name, key, ExtendedKeyUsageOID.SERVER_AUTH, hosts, now, LONG)

    def sealer(self, name: str, key: ec.EllipticCurvePublicKey, now: datetime) -> x509.Certificate:
        """Return a certificate for who seals and opens files, and is neither a TLS client nor a server."""
        return self._issue(name, key, ExtendedKeyUsageOID.EMAIL_PROTECTION, (), now, LONG)

    def revocations(self, serials: Iterable[int], number: int) -> bytes:
        """Return the list of revoked serials as PEM. A later list has a greater `number`, counted from 0.

        Its dates come from the number and the authority, not from a clock: OpenSSL takes the list with the later date, and one
        whose date is still to come locks everybody out. Nor does a list outdate before the authority does.
        """
        began = self.certificate.not_valid_before_utc
        at = began + timedelta(seconds=number)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(at)
            .next_update(self.certificate.not_valid_after_utc)
            .add_extension(x509.CRLNumber(number), critical=False)
            .add_extension(_authority_key(self.certificate), critical=False)
        )
        for serial in sorted(serials):
            revoked = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(at).build()
            builder = builder.add_revoked_certificate(revoked)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def _issue(
        self,
        name: str,
        key: ec.EllipticCurvePublicKey,
        usage: x509.ObjectIdentifier,
        hosts: Sequence[str],
        now: datetime,
        lasts: timedelta,
    ) -> x509.Certificate:
        until = min(now + lasts, self.certificate.not_valid_after_utc)
        # Not by the clock: one that runs ahead for an hour would make certificates that nobody takes until it was right.
        begins = self.certificate.not_valid_before_utc
        builder = _builder(named(name), self.certificate.subject, key, begins, until)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(key_usage(signs_certificates=False), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        builder = builder.add_extension(_authority_key(self.certificate), critical=False)
        if hosts:
            names = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
            builder = builder.add_extension(names, critical=False)
        return builder.sign(self.key, hashes.SHA256())


def new_root(name: str, now: datetime) -> Maker:
    """Return a new authority."""
    key = new_key()
    begins, until = now - _ROOT_BACKDATED, now + LONG
    builder = _builder(named(name), named(name), key.public_key(), begins, until)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(key_usage(signs_certificates=True), critical=True)
    return Maker(builder.sign(key, hashes.SHA256()), key)


def new_key() -> ec.EllipticCurvePrivateKey:
    """Return a new private key."""
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a private key as PEM, not encrypted."""
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def certificate_pem(certificate: x509.Certificate) -> bytes:
    """Return a certificate as PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def named(name: str) -> x509.Name:
    """Return a subject of one common name."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, begins: datetime, until: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(until)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _authority_key(certificate: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    own = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    """Return what a key may be used for: an authority's signs certificates and lists, all others sign what they send."""
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
