"""Sends letters by SMTP (RFC 5321), over TLS with a verified certificate."""

import asyncio
import os
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Self, cast
from urllib.parse import unquote, urlsplit

from aiosmtplib import (
    SMTP,
    SMTPAuthenticationError,
    SMTPDataError,
    SMTPException,
    SMTPNotSupported,
    SMTPRecipientsRefused,
    SMTPResponseException,
    SMTPSenderRefused,
    SMTPServerDisconnected,
)

from accord_gateway.mail.letters import Letter
from accord_gateway.mail.transport import Deferred, NotSent, Rejected, Unreachable
from accord_gateway.server.ports import format_address
from accord_gateway.setting_values import is_loopback

CONNECT_SECONDS = 10.0
RESPONSE_SECONDS = 60.0  # servers that scan for spam before they respond are slow
QUIT_SECONDS = 2.0

# "Try again later", "authentication required" and "authentication failed" concern the client, not the letter.
_ABOUT_THE_CLIENT = (421, 530, 535)
# aiosmtplib's code for a line that is not an SMTP response.
_NO_CODE = -1


@dataclass(frozen=True, slots=True)
class SmtpServer:
    """A mail server: its address, encryption and credentials."""

    host: str
    port: int
    implicit_tls: bool  # TLS from the first byte, as on port 465; otherwise STARTTLS is required
    plaintext: bool  # no TLS at all
    user: str | None
    password: str = field(repr=False)

    @classmethod
    def of(cls, url: str, *, plaintext_on_loopback: bool) -> Self:
        """`smtps://user:password@host:465`, or `smtp://user:password@host:587` for STARTTLS."""
        parts = urlsplit(url)
        implicit_tls, host = parts.scheme == "smtps", parts.hostname or ""
        return cls(
            host=host,
            port=parts.port or (465 if implicit_tls else 587),
            implicit_tls=implicit_tls,
            plaintext=plaintext_on_loopback and not implicit_tls and is_loopback(host),
            user=unquote(parts.username) if parts.username else None,
            password=unquote(parts.password or ""),
        )


class SmtpTransport:
    """Keeps its connection between letters, until `close`. A `send` that fails or is cancelled drops the connection."""

    def __init__(self, server: SmtpServer, *, ehlo_name: str) -> None:
        self._server = server
        self._ehlo_name = ehlo_name  # aiosmtplib's default is a DNS lookup of this machine's name
        self._connection: SMTP | None = None

    @property
    def place(self) -> str:
        return format_address(self._server.host, self._server.port)

    async def send(self, letter: Letter) -> None:
        connection, self._connection = self._connection, None
        if connection is None or not connection.is_connected:
            connection = await self._connect()
        with _dropped_on_failure(connection), _send_errors():
            await connection.send_message(letter.message, sender=letter.sender, recipients=[letter.recipient])
        self._connection = connection

    async def check(self) -> None:
        """Connects and authenticates. Raises Unreachable."""
        self._connection = await self._connect()
        await self.close()

    async def close(self) -> None:
        """Waits QUIT_SECONDS at most for the server's response to QUIT."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(SMTPException, OSError), _dropped_on_failure(connection):
                await connection.quit(timeout=QUIT_SECONDS)

    async def _connect(self) -> SMTP:
        connection = SMTP(
            hostname=self._server.host,
            port=self._server.port,
            username=self._server.user,
            password=self._server.password,
            local_hostname=self._ehlo_name,
            timeout=CONNECT_SECONDS,
            use_tls=self._server.implicit_tls,
            # Without STARTTLS aiosmtplib raises before it sends credentials.
            start_tls=not (self._server.implicit_tls or self._server.plaintext),
        )
        with _dropped_on_failure(connection), _connect_errors():
            await connection.connect()
        connection.timeout = RESPONSE_SECONDS
        return connection


@contextmanager
def _dropped_on_failure(connection: SMTP) -> Iterator[None]:
    try:
        with _cancellation_kept():
            yield
    except BaseException:
        if connection.transport is not None:  # `close` alone would send what is buffered, and wait for TLS to close
            cast(asyncio.WriteTransport, connection.transport).abort()
        connection.close()
        raise


@contextmanager
def _cancellation_kept() -> Iterator[None]:
    """Before Python 3.12, `asyncio.wait_for`, which aiosmtplib uses, loses a cancellation that arrives together with a response."""
    try:
        yield
    finally:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise asyncio.CancelledError


@contextmanager
def _send_errors() -> Iterator[None]:
    """Reports response codes only: the texts of responses often name the recipient."""
    try:
        yield
    except SMTPRecipientsRefused as error:
        [refused] = error.recipients
        raise _refusal("the recipient", refused.code) from None
    except SMTPDataError as error:
        raise _refusal("the content", error.code) from None
    except SMTPSenderRefused as error:  # MAIL_FROM is the same for every letter
        raise Unreachable(f"the server responds {error.code} to the sender, MAIL_FROM") from None
    except SMTPNotSupported:
        raise Rejected("the address is not ASCII, and the server does not support SMTPUTF8") from None
    except (SMTPServerDisconnected, OSError) as error:
        raise Deferred(f"the connection was lost: {_reason(error)}") from None
    except SMTPException as error:
        raise Unreachable(f"the server does not follow SMTP: {type(error).__name__}") from None


def _refusal(of: str, code: int) -> NotSent:
    kind = Unreachable if code in _ABOUT_THE_CLIENT else Rejected if 500 <= code < 600 else Deferred
    return kind(f"the server responds {code} to {of}")


@contextmanager
def _connect_errors() -> Iterator[None]:
    try:
        yield
    except SMTPAuthenticationError as error:
        raise Unreachable(f"it responds {error.code} to the user and password") from None
    except SMTPResponseException as error:
        raise Unreachable("it does not speak SMTP" if error.code == _NO_CODE else f"it responds {error.code}") from None
    except (SMTPException, OSError) as error:
        raise Unreachable(_reason(error)) from None
    except ValueError as error:  # a challenge that cannot be decoded
        raise Unreachable(f"the server does not follow SMTP: {type(error).__name__}") from None


def _reason(error: Exception) -> str:
    """The cause that aiosmtplib wraps, in the words of OpenSSL or the operating system."""
    cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate cannot be trusted: {cause.verify_message}"
    if isinstance(cause, (ssl.SSLError, socket.gaierror)) and cause.strerror:
        return cause.strerror
    if isinstance(cause, OSError) and cause.errno:
        return os.strerror(cause.errno)
    return str(error) or type(error).__name__
