"""A mail server on loopback, whose responses, delays and disconnections a test controls."""

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
    """Sends each of `responses` once, and otherwise accepts everything."""

    port: int
    received: list[Received] = field(default_factory=list)
    responses: dict[str, list[str]] = field(default_factory=dict)  # by command; "cut" closes the connection instead
    arrived_ids: list[str] = field(default_factory=list)  # of complete messages, with or without a response
    sessions: set[int] = field(default_factory=set)
    logins: list[tuple[bytes, bytes]] = field(default_factory=list)
    password: bytes = b""
    stuck: Event = field(default_factory=Event)  # while set, messages receive no response
    arrived: Event = field(default_factory=Event)
    hang_up: Callable[[], None] = field(default=lambda: None)  # closes all connections

    @property
    def ids(self) -> list[str]:
        return [str(received.message["Message-ID"]) for received in self.received]

    def _response(self, command: str, server: SMTP) -> str | None:
        responses = self.responses.get(command)
        response = responses.pop(0) if responses else None
        if response == "cut":
            assert isinstance(server.transport, asyncio.Transport)
            server.transport.abort()
        return response

    async def handle_MAIL(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        self.sessions.add(id(session))
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return self._response("MAIL", server) or "250 OK"

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        response = self._response("RCPT", server)
        if response is None:
            envelope.rcpt_tos.append(address)
        return response or "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        assert isinstance(envelope.content, bytes)
        message = BytesParser(EmailMessage, policy=POLICY).parsebytes(envelope.content)
        self.arrived_ids.append(str(message["Message-ID"]))
        self.arrived.set()
        while self.stuck.is_set():
            await asyncio.sleep(0.01)
        if response := self._response("DATA", server):
            return response
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
    """Registers its transport, because aiosmtpd leaves connections open when it stops."""

    transports: set[asyncio.BaseTransport]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transports.add(transport)
        super().connection_made(transport)

    async def _handle_client(self) -> None:
        with suppress(TLSSetupException):  # the client does not trust the certificate
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
            if not transport.is_closing():  # before Python 3.11.4, a TLS transport cannot be aborted after its end
                transport.abort()
        for _ in range(5):  # iterations of the event loop, which close them
            await asyncio.sleep(0)


@contextmanager
def mail_server(**options: Any) -> Iterator[MailServer]:
    """The options are those of aiosmtpd."""
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
    """A certificate authority. Processes with its file in SSL_CERT_FILE trust its certificates."""

    file: Path
    ca: trustme.CA

    @classmethod
    def new(cls, folder: Path) -> "Authority":
        ca, file = trustme.CA(), folder / "mail-ca.pem"
        ca.cert_pem.write_to_path(file)
        return cls(file, ca)

    def context(self, name: str = "127.0.0.1") -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.ca.issue_cert(name).configure_cert(context)
        return context
