"""Modbus/TCP Security: both ends show a certificate, TLS 1.2 at the least; never without verification.

Source: MODBUS/TCP Security Protocol Specification v36, 5 and 8.
"""

import ssl

from derms.errors import ConfigError, Problem
from derms.ports import FieldOptions

LOSS_HINT = " (before any answer: it may not accept our certificate)"
"""With TLS 1.3 a device refuses a client only after the handshake is done, some of them without a word."""


def client_context(options: FieldOptions) -> ssl.SSLContext:
    """A context that trusts the site's authority alone and shows the site's certificate.

    Raises ConfigError for files that are not named, not there, or do not fit together.
    """
    files = {"tls_ca": options.tls_ca, "tls_certificate": options.tls_certificate, "tls_key": options.tls_key}
    missing = [name for name, path in files.items() if path is None]
    if missing or options.tls_ca is None or options.tls_certificate is None:
        raise _wrong("no " + ", ".join(missing), "name all three files: devices of the fleet speak over TLS")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_verify_locations(options.tls_ca)
        context.load_cert_chain(options.tls_certificate, options.tls_key)
    except OSError as error:
        named = ", ".join(f"{name} {path}" for name, path in files.items())
        raise _wrong(f"{named}: {error}", "give PEM files: the authority, our certificate, and its key") from error
    return context


def _wrong(what: str, right: str) -> ConfigError:
    return ConfigError([Problem("site file", "[field]", what, right)])
