"""The web server over TLS of a Mininet host: nginx with a certificate that it has from nobody else."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from pathlib import Path

from lvslab.boot.services.http import CERTIFICATE, KEY, SITES, Nginx
from lvslab.lab.model import HttpsService
from lvslab.lab.rules import Address

# Clients of any date take it, as the clocks of labs may differ.
_FROM, _TO = datetime.datetime(2000, 1, 1), datetime.datetime(2099, 12, 31)


def certificate(host: str, addresses: Iterable[Address]) -> tuple[str, str]:
    """Return a new self-signed certificate for ``host`` and its addresses, and the key, as PEM."""
    # Only where a lab has such a server.
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    names = [x509.DNSName(host), *map(x509.IPAddress, addresses)]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_FROM)
        .not_valid_after(_TO)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return made.public_bytes(serialization.Encoding.PEM).decode(), private.decode()


class HttpsServer(Nginx):
    """nginx over TLS, with the page of the host's web server."""

    service = HttpsService
    log = Path(SITES["https"].log)

    def _files(self) -> dict[str, str]:
        addresses = (each.ip for card in self.host.cards for each in card.addresses)
        made, key = certificate(self.host.name, addresses)
        return {CERTIFICATE: made, KEY: key, **super()._files()}


SERVER = HttpsServer
