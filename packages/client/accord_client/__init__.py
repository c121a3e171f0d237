"""The Python client. `open_channel` is for threads, `accord_client.aio.open_channel` for asyncio."""

from accord_client.call_failed import CallFailed, Violation
from accord_client.credentials import ApiKey, Credentials, ServiceAccount, ServiceToken, SessionToken
from accord_client.plain_text import PlainTextRefused
from accord_client.sync.channel import open_channel
from accord_client.tls import Tls

__all__ = [
    "ApiKey",
    "CallFailed",
    "Credentials",
    "PlainTextRefused",
    "ServiceAccount",
    "ServiceToken",
    "SessionToken",
    "Tls",
    "Violation",
    "open_channel",
]
