"""
Trust in certificates, and the meaning of a failed handshake.

A client trusts the certificates of the system's store, as curl and openssl do, and those that
SSL_CERT_FILE and SSL_CERT_DIR name. On a machine without a store, such as a small container, it uses the
certificates that come with httpx.
"""

import os
import ssl
from collections.abc import Iterator

from taskd.errors import Invalid

# X509_V_ERR_*: self-signed, alone or at the top of the chain, and an issuer that is not known.
UNKNOWN_ISSUER = frozenset({18, 19, 20, 21})


def trusted() -> ssl.SSLContext:
    """Return a context that trusts the same certificates as this machine. Raises `Invalid` for a bad SSL_CERT_FILE."""
    context = ssl.create_default_context()  # OpenSSL reads both variables itself and reports no error
    # The same flags as curl's, on every Python: 3.13 and later refuse a private authority for formal faults.
    context.verify_flags = ssl.VERIFY_X509_TRUSTED_FIRST | ssl.VERIFY_X509_PARTIAL_CHAIN
    named = os.environ.get("SSL_CERT_FILE")
    try:
        if named:
            context.load_verify_locations(named)
        elif not _has_store():
            import certifi  # httpx depends on it

            context.load_verify_locations(certifi.where())
    except OSError as error:  # ssl.SSLError is one
        reason = "the file has no certificate in PEM format" if isinstance(error, ssl.SSLError) else error.strerror
        raise Invalid(f"SSL_CERT_FILE={named!r}: {reason}.") from error
    return context


def handshake_fault(error: BaseException) -> str:
    """Return the reason why TLS failed, in a sentence with advice; "" if `error` does not come from TLS."""
    found = next((cause for cause in _causes(error) if isinstance(cause, ssl.SSLError)), None)
    if isinstance(found, ssl.SSLCertVerificationError):
        advice = " Name the file of its certificate authority in SSL_CERT_FILE."
        unknown = found.verify_code in UNKNOWN_ISSUER
        return f"its certificate is not trusted: {found.verify_message.rstrip('.')}.{advice if unknown else ''}"
    if found is None:
        return ""
    return f"TLS failed ({found.reason or found}). If the server speaks plain HTTP, ask it with http://."


def _has_store() -> bool:
    paths = ssl.get_default_verify_paths()  # only files and directories that exist
    return bool(paths.cafile or (paths.capath and os.listdir(paths.capath)))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
