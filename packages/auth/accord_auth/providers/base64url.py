"""base64url without padding (RFC 7515, 2), of which every value has one spelling."""

from base64 import urlsafe_b64decode, urlsafe_b64encode


def encoded(value: bytes) -> str:
    return urlsafe_b64encode(value).rstrip(b"=").decode()


def decoded(text: str) -> bytes:
    """Raises ValueError. The library's own leaves out what it does not know, and does not look at spare bits."""
    value = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if encoded(value) != text:
        raise ValueError("not base64url in its one spelling")
    return value
