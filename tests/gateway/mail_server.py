"""A mail server on loopback, which a test may make answer, wait and hang up as it likes."""

import asyncio
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import SMTP as POLICY
from pathlib import Path
from threading import Event
from typing import Any

import trustme
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session, TLSSetupException

from tests.ports import free_port


@dataclass
class Received:
    sender: str
    recipients: list[str]
    message: EmailMessage
    encrypted: bool

    @property
    def text(self) -> str:
        return body(self.message, "plain")

    @property
    def html(self) -> str:
        return body(self.message, "html")


def body(message: EmailMessage, kind: str) -> str:
    part = message.get_body((kind,))
    assert part is not None
    return str(part.get_content())


@dataclass
class MailServer:
    """Answers as it is told, once for each answer, and then takes everything."""

    port: int
    received: list[Received] = field(default_factory=list)
    answers: dict[str, list[str]] = field(default_factory=dict)  # by command; "cut" hangs up without one
    came: list[str] = field(default_factory=list)  # ids of what was sent to the end, whether or not it was answered
    sessions: set[int] = field(default_factory=set)
    logins: list[tuple[bytes, bytes]] = field(default_factory=list)
    password: bytes = b""
    stuck: Event = field(default_factory=Event)  # set as long as messages that have come are not answered
    arrived: Event = field(default_factory=Event)
    hang_up: Callable[[], None] = field(default=lambda: None)  # closes all connections

    @property
    def ids(self) -> list[str]:
        return [str(received.message["Message-ID"]) for received in self.received]

    def _answer(self, command: str, server: SMTP) -> str | None:
        answers = self.answers.get(command)
        answer = answers.pop(0) if answers else None
        if answer == "cut":
            assert isinstance(server.transport, asyncio.Transport)
            server.transport.abort()
        return answer

    async def handle_MAIL(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        self.sessions.add(id(session))
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return self._answer("MAIL", server) or "250 OK"

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        answer = self._answer("RCPT", server)
        if answer is None:
            envelope.rcpt_tos.append(address)
        return answer or "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        assert isinstance(envelope.content, bytes)
        message = BytesParser(EmailMessage, policy=POLICY).parsebytes(envelope.content)
        self.came.append(str(message["Message-ID"]))
        self.arrived.set()
        while self.stuck.is_set():
            await asyncio.sleep(0.01)
        if answer := self._answer("DATA", server):
            return answer
        assert server.transport is not None
        encrypted = session.ssl is not None or server.transport.get_extra_info("sslcontext") is not None
        self.received.append(Received(str(envelope.mail_from), envelope.rcpt_tos, message, encrypted))
        return "250 OK"

    def authenticate(
        self, _server: SMTP, _session: Session, _envelope: Envelope, _mechanism: str, data: Any
    ) -> AuthResult:
        assert isinstance(data, LoginPassword)
        self.logins.append((data.login, data.password))
        return AuthResult(success=data.password == self.password, handled=False)


class _Connection(SMTP):
    """One that can be closed from outside: aiosmtpd leaves its connections open when it stops."""

    transports: set[asyncio.BaseTransport]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transports.add(transport)
        super().connection_made(transport)

    async def _handle_client(self) -> None:
        with suppress(TLSSetupException):  # whoever calls does not trust us
            await super()._handle_client()


class _Controller(Controller):
    def factory(self) -> SMTP:
        connection = _Connection(self.handler, **self.SMTP_kwargs)
        connection.transports = self.transports
        return connection

    def start(self, *arguments: Any, **options: Any) -> None:
        self.transports: set[asyncio.BaseTransport] = set()
        super().start(*arguments, **options)

    def hang_up(self) -> None:
        asyncio.run_coroutine_threadsafe(self._close_all(), self.loop).result()

    def stop(self, no_assert: bool = False) -> None:
        self.hang_up()
        super().stop(no_assert)

    async def _close_all(self) -> None:
        for transport in self.transports:
            assert isinstance(transport, asyncio.Transport)
            transport.abort()
        for _ in range(5):  # turns of the loop, in which they are closed
            await asyncio.sleep(0)


@contextmanager
def mail_server(**options: Any) -> Iterator[MailServer]:
    """The options are aiosmtpd's."""
    server = MailServer(options.pop("port", None) or free_port())
    with serving(server, **options):
        yield server


@contextmanager
def serving(server: MailServer, **options: Any) -> Iterator[None]:
    controller = _Controller(server, "127.0.0.1", server.port, **options)
    controller.start()
    server.hang_up = controller.hang_up
    try:
        yield
    finally:
        server.stuck.clear()
        controller.stop()


@dataclass(frozen=True)
class Authority:
    """One whose certificates are trusted by whoever is given its file in SSL_CERT_FILE."""

    file: Path
    made: trustme.CA

    @classmethod
    def new(cls, folder: Path) -> "Authority":
        made, file = trustme.CA(), folder / "mail-ca.pem"
        made.cert_pem.write_to_path(file)
        return cls(file, made)

    def context(self, name: str = "127.0.0.1") -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.made.issue_cert(name).configure_cert(context)
        return context
