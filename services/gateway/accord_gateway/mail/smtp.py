"""Letters handed to a mail server (RFC 5321), over TLS with a verified certificate."""

import smtplib
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import unquote, urlsplit

from accord_gateway.mail.letters import Letter
from accord_gateway.mail.transport import Deferred, NotSent, Rejected, Unreachable
from accord_gateway.server.ports import address
from accord_gateway.setting_values import is_loopback

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 60.0  # servers that look for spam while one waits take their time
GOODBYE_SECONDS = 2.0

# "Come back later", "log in first" and "not with this password" are said of us, whatever letter they are said to.
_ABOUT_US = (421, 530, 535)


@dataclass(frozen=True, slots=True)
class SmtpServer:
    """Where a mail server is, and how it is talked to."""

    host: str
    port: int
    tls_first: bool  # as on port 465; else STARTTLS, before which nothing is said
    plain: bool  # no TLS at all
    user: str | None
    password: str = field(repr=False)

    @classmethod
    def of(cls, url: str, *, plain_on_loopback: bool) -> Self:
        """`smtps://user:password@host:465`, or `smtp://user:password@host:587` for STARTTLS."""
        parts = urlsplit(url)
        tls_first, host = parts.scheme == "smtps", parts.hostname or ""
        return cls(
            host=host,
            port=parts.port or (465 if tls_first else 587),
            tls_first=tls_first,
            plain=plain_on_loopback and not tls_first and is_loopback(host),
            user=unquote(parts.username) if parts.username else None,
            password=unquote(parts.password or ""),
        )


class SmtpTransport:
    """Keeps its connection from one letter to the next, until it is closed."""

    def __init__(self, server: SmtpServer, *, greet_as: str) -> None:
        self._server = server
        self._greet_as = greet_as  # in EHLO; what smtplib would find out by itself can take it seconds of DNS
        self._kept: smtplib.SMTP | None = None
        self._in_use: smtplib.SMTP | None = None
        self._aborted = 0

    @property
    def place(self) -> str:
        return address(self._server.host, self._server.port)

    def send(self, letter: Letter) -> None:
        turn = self._aborted
        connection, self._kept = self._kept or self._connect(turn), None
        with _closed_on_failure(connection), _faults_of_a_letter():
            self._in_use = connection
            connection.send_message(letter.message, letter.sender, letter.recipient)
        if turn == self._aborted:
            self._kept = connection
        else:
            connection.close()

    def check(self) -> None:
        """Raises Unreachable unless letters can be sent."""
        self._kept = self._connect(self._aborted)
        self.close()

    def close(self) -> None:
        connection, self._kept = self._kept, None
        if connection is not None:
            with _closed_on_failure(connection), suppress(smtplib.SMTPException, OSError):
                _wait_no_longer_than(GOODBYE_SECONDS, connection)
                connection.quit()
            connection.close()

    def abort(self) -> None:
        self._aborted += 1
        if self._in_use is not None and self._in_use.sock is not None:
            with suppress(OSError):  # past TLS, whose state belongs to the thread that sends
                socket.socket.shutdown(self._in_use.sock, socket.SHUT_RDWR)

    def _connect(self, turn: int) -> smtplib.SMTP:
        with _faults_of_the_server():
            connection = self._in_use = self._open()
        with _closed_on_failure(connection), _faults_of_the_server():
            if not (self._server.tls_first or self._server.plain):
                connection.starttls(context=ssl.create_default_context())
            if self._server.user is not None:
                connection.login(self._server.user, self._server.password)
            _wait_no_longer_than(ANSWER_SECONDS, connection)
            if turn != self._aborted:
                raise Unreachable("it was given up meanwhile")
        return connection

    def _open(self) -> smtplib.SMTP:
        host, port, name = self._server.host, self._server.port, self._greet_as
        if self._server.tls_first:
            tls = ssl.create_default_context()
            return smtplib.SMTP_SSL(host, port, name, timeout=CONNECT_SECONDS, context=tls)
        return smtplib.SMTP(host, port, name, timeout=CONNECT_SECONDS)


def _wait_no_longer_than(seconds: float, connection: smtplib.SMTP) -> None:
    if connection.sock is not None:  # or it is lost, which whatever is tried next will say
        connection.sock.settimeout(seconds)


@contextmanager
def _closed_on_failure(connection: smtplib.SMTP) -> Iterator[None]:
    try:
        yield
    except BaseException:
        connection.close()
        raise


@contextmanager
def _faults_of_a_letter() -> Iterator[None]:
    try:
        yield
    except smtplib.SMTPRecipientsRefused as error:
        [(code, _)] = error.recipients.values()
        raise _answer("the recipient", code) from None
    except smtplib.SMTPDataError as error:
        raise _answer("the content", error.smtp_code) from None
    except smtplib.SMTPSenderRefused as error:  # which is the same for every letter
        raise Unreachable(f"the server answers {error.smtp_code} to the sender, MAIL_FROM") from None
    except smtplib.SMTPNotSupportedError:
        raise Rejected("the address is not in ASCII, and the server does not know SMTPUTF8") from None
    except smtplib.SMTPServerDisconnected:
        raise Deferred("the connection was lost") from None
    except smtplib.SMTPException as error:
        raise Unreachable(f"no SMTP: {type(error).__name__}") from None
    except OSError as error:
        raise Deferred(f"the connection was lost: {_words(error)}") from None


def _answer(to: str, code: int) -> NotSent:
    """The code alone: the text that comes with it tends to name the recipient."""
    kind = Unreachable if code in _ABOUT_US else Rejected if 500 <= code < 600 else Deferred
    return kind(f"the server answers {code} to {to}")


@contextmanager
def _faults_of_the_server() -> Iterator[None]:
    try:
        yield
    except ssl.SSLCertVerificationError as error:
        raise Unreachable(f"its certificate cannot be trusted: {error.verify_message}") from None
    except smtplib.SMTPAuthenticationError as error:
        raise Unreachable(f"it answers {error.smtp_code} to the user and password") from None
    except smtplib.SMTPResponseException as error:
        raise Unreachable(f"it answers {error.smtp_code}") from None
    except (smtplib.SMTPException, OSError) as error:  # in words of smtplib, OpenSSL or the system
        raise Unreachable(_words(error)) from None


def _words(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__
