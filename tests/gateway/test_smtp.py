"""SMTP against a real server: nothing is sent without verified TLS, and every response is handled."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread

import pytest
import trustme
from pydantic import SecretStr

from accord_api.outbox import Content, Mail
from accord_db.engine.ids import uuid7
from accord_gateway.mail import smtp
from accord_gateway.mail.letters import Letter, Letters
from accord_gateway.mail.smtp import SmtpServer, SmtpTransport
from accord_gateway.mail.transport import Deferred, NotSent, Rejected, Unreachable
from accord_gateway.mail.wiring import smtp_transport
from accord_gateway.settings import Settings
from tests.gateway.mail_server import Authority, MailServer, mail_server, serving
from tests.ports import free_port

Transport = Callable[..., SmtpTransport]


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    """A certificate authority that this process trusts."""
    authority = Authority.new(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    return authority


@pytest.fixture
def plain() -> Iterator[MailServer]:
    with mail_server() as server:
        yield server


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    transports: list[SmtpTransport] = []

    def transport(url: str, *, plaintext_on_loopback: bool = False) -> SmtpTransport:
        server = SmtpServer.of(url, plaintext_on_loopback=plaintext_on_loopback)
        transports.append(SmtpTransport(server, ehlo_name="example.org"))
        return transports[-1]

    yield transport
    for each in transports:
        await each.close()


def letter(to: str = "ada@example.com") -> Letter:
    letters = Letters(mail_from="Example <no@example.org>", app_url="https://app.example.org")
    content = Content(to, {"display_name": "Ada"})
    return letters.write(Mail.PASSWORD_CHANGED, content, message_id=uuid7(), created_at=datetime.now(UTC))


def in_plain(transport: Transport, server: MailServer) -> SmtpTransport:
    return transport(f"smtp://127.0.0.1:{server.port}", plaintext_on_loopback=True)


async def test_a_letter_arrives_over_starttls(authority: Authority, transport: Transport) -> None:
    with mail_server(tls_context=authority.context(), require_starttls=True) as server:
        await transport(f"smtp://127.0.0.1:{server.port}").send(sent := letter())
    [received] = server.received
    assert received.encrypted
    assert (received.sender, received.recipients) == ("no@example.org", ["ada@example.com"])
    assert received.message["Message-ID"] == sent.message["Message-ID"]
    assert "Hello Ada," in received.text
    assert "Hello Ada," in received.html


async def test_a_letter_arrives_over_tls_from_the_first_byte(authority: Authority, transport: Transport) -> None:
    with mail_server(ssl_context=authority.context()) as server:
        await transport(f"smtps://127.0.0.1:{server.port}").send(letter())
    assert [received.encrypted for received in server.received] == [True]


@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
@pytest.mark.parametrize("wrong", ["authority", "name"])
async def test_a_certificate_that_is_not_trusted_ends_the_connection(
    authority: Authority, transport: Transport, scheme: str, wrong: str
) -> None:
    shown = Authority(authority.file, trustme.CA()) if wrong == "authority" else authority
    context = shown.context("mail.example.com" if wrong == "name" else "127.0.0.1")
    options = {"ssl_context": context} if scheme == "smtps" else {"tls_context": context}
    with (
        mail_server(**options, authenticator=None) as server,
        pytest.raises(Unreachable, match="its certificate cannot be trusted"),
    ):
        await transport(f"{scheme}://ada:secret@127.0.0.1:{server.port}").send(letter())
    assert server.sessions == set()
    assert server.logins == []


async def test_without_starttls_neither_letter_nor_password_is_sent(plain: MailServer, transport: Transport) -> None:
    with pytest.raises(Unreachable, match="STARTTLS"):
        await transport(f"smtp://ada:secret@127.0.0.1:{plain.port}").send(letter())
    assert plain.sessions == set()
    assert plain.logins == []


async def test_plaintext_is_allowed_on_loopback_in_development_only(plain: MailServer, transport: Transport) -> None:
    await in_plain(transport, plain).send(letter())
    assert [received.encrypted for received in plain.received] == [False]
    for url, allowed in (("smtp://mail.example.com", True), ("smtps://127.0.0.1", True), ("smtp://127.0.0.1", False)):
        assert not SmtpServer.of(url, plaintext_on_loopback=allowed).plaintext


async def test_production_requires_tls_on_loopback_too(plain: MailServer) -> None:
    url = SecretStr(f"smtp://127.0.0.1:{plain.port}")
    in_development, in_production = (
        smtp_transport(Settings.model_validate({"accord_env": environment, "smtp_url": url}))
        for environment in ("development", "production")
    )
    assert in_development is not None
    assert in_production is not None
    await in_development.check()
    with pytest.raises(Unreachable, match="STARTTLS"):
        await in_production.check()


@pytest.mark.parametrize(
    ("url", "port"), [("smtp://mail", 587), ("smtps://mail", 465), ("smtp://mail:25", 25), ("smtps://[::1]:2525", 2525)]
)
def test_default_ports_are_those_of_submission(url: str, port: int) -> None:
    assert SmtpServer.of(url, plaintext_on_loopback=False).port == port


def test_the_host_is_encoded_by_idna_2008() -> None:
    transport = smtp_transport(Settings.model_validate({"smtp_url": SecretStr("smtps://ada:secret@mail.straße.de")}))
    assert transport is not None
    assert transport.place == "mail.xn--strae-oqa.de:465"


async def test_user_and_password_come_from_the_url(authority: Authority, transport: Transport) -> None:
    server = MailServer(free_port(), password=b"p@ss/w:rd")
    options = {"tls_context": authority.context(), "authenticator": server.authenticate, "auth_required": True}
    with serving(server, **options):
        await transport(f"smtp://ada%40example.org:p%40ss%2Fw%3Ard@127.0.0.1:{server.port}").send(letter())
    assert server.logins == [(b"ada@example.org", b"p@ss/w:rd")]
    assert len(server.received) == 1


async def test_a_wrong_password_makes_the_server_unreachable(authority: Authority, transport: Transport) -> None:
    server = MailServer(free_port(), password=b"another")
    options = {"tls_context": authority.context(), "authenticator": server.authenticate, "auth_required": True}
    with serving(server, **options):
        with pytest.raises(Unreachable, match="535") as fault:
            await transport(f"smtp://ada:secret@127.0.0.1:{server.port}").send(letter())
        with pytest.raises(Unreachable, match="530"):
            await transport(f"smtp://127.0.0.1:{server.port}").send(letter())
    assert "secret" not in str(fault.value)
    assert server.received == []


def test_the_password_is_not_shown() -> None:
    assert "secret" not in repr(SmtpServer.of("smtp://ada:secret@mail", plaintext_on_loopback=False))


async def test_one_connection_serves_a_burst_and_is_closed_after_it(plain: MailServer, transport: Transport) -> None:
    one = in_plain(transport, plain)
    for _ in range(3):
        await one.send(letter())
    assert len(plain.sessions) == 1
    await one.close()
    await one.send(letter())
    assert len(plain.received) == 4
    assert len(plain.sessions) == 2


@pytest.mark.parametrize(
    ("command", "response", "kind"),
    [
        ("RCPT", "450 ada@example.com try later", Deferred),
        ("RCPT", "550 no such person ada@example.com", Rejected),
        ("DATA", "451 try later", Deferred),
        ("DATA", "554 ada@example.com does not want that", Rejected),
        ("DATA", "cut", Deferred),
        ("RCPT", "421 closing", Unreachable),
        ("DATA", "421 closing", Unreachable),
        ("RCPT", "530 log in first", Unreachable),
        ("MAIL", "550 not from you", Unreachable),
        ("MAIL", "421 too many", Unreachable),
        ("MAIL", "cut", Deferred),
    ],
)
async def test_each_response_has_its_kind_of_failure_and_the_next_letter_is_sent(
    plain: MailServer, transport: Transport, command: str, response: str, kind: type[NotSent]
) -> None:
    plain.responses[command] = [response]
    one = in_plain(transport, plain)
    with pytest.raises(NotSent) as fault:
        await one.send(letter())
    assert type(fault.value) is kind
    assert "ada@example.com" not in str(fault.value)
    assert plain.received == []
    await one.send(letter())
    assert len(plain.received) == 1


async def test_a_server_that_does_not_exist_is_unreachable(transport: Transport) -> None:
    with pytest.raises(Unreachable, match="refused"):
        await transport(f"smtp://127.0.0.1:{free_port()}").send(letter())
    with pytest.raises(Unreachable):
        await transport("smtp://no-such-host.invalid").send(letter())


async def test_a_server_of_another_protocol_is_unreachable(transport: Transport) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:

        def respond() -> None:
            with other.accept()[0] as caller:
                caller.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        responding = Thread(target=respond)
        responding.start()
        with pytest.raises(Unreachable):
            await transport(f"smtp://127.0.0.1:{other.getsockname()[1]}", plaintext_on_loopback=True).send(letter())
        responding.join()


async def test_an_address_that_is_not_ascii_is_sent_by_smtputf8(transport: Transport) -> None:
    with mail_server(enable_SMTPUTF8=True) as server:
        await in_plain(transport, server).send(letter("jörg@bücher.example"))
    assert server.received[0].recipients == ["jörg@xn--bcher-kva.example"]


async def test_an_address_that_is_not_ascii_is_rejected_without_smtputf8(transport: Transport) -> None:
    with mail_server(enable_SMTPUTF8=False) as server, pytest.raises(Rejected, match="SMTPUTF8"):
        await in_plain(transport, server).send(letter("jörg@example.com"))


async def test_cancelling_a_send_drops_its_connection_and_the_next_letter_is_sent(
    plain: MailServer, transport: Transport
) -> None:
    plain.stuck.set()
    one = in_plain(transport, plain)
    sending = asyncio.create_task(one.send(letter()))
    assert await asyncio.to_thread(plain.arrived.wait, 30)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(sending, 30)
    plain.stuck.clear()
    await one.send(letter())
    assert len(plain.sessions) == 2


@pytest.mark.parametrize("step", ["send", "close"])
async def test_cancellation_at_the_moment_of_a_response_is_not_lost(
    plain: MailServer, transport: Transport, step: str
) -> None:
    """Before Python 3.12, `asyncio.wait_for`, which aiosmtplib uses, returns the response and forgets the cancellation."""
    smtp = in_plain(transport, plain)
    await smtp.send(letter())
    connection = smtp._connection
    assert connection is not None
    assert connection.protocol is not None
    task = asyncio.ensure_future(smtp.send(letter()) if step == "send" else smtp.close())
    while not connection.protocol._response_pending:
        await asyncio.sleep(0)
    response = connection.protocol._response_waiter
    assert response is not None
    response.add_done_callback(lambda _: task.cancel())
    await asyncio.wait([task])
    assert task.cancelled()


async def test_a_connection_that_the_server_has_closed_is_replaced(plain: MailServer, transport: Transport) -> None:
    one = in_plain(transport, plain)
    await one.send(letter())
    await asyncio.to_thread(plain.hang_up)
    await one.send(letter())
    assert len(plain.received) == len(plain.sessions) == 2


async def test_cancelling_while_the_server_is_silent_closes_the_connection(transport: Transport) -> None:
    closed = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        closed.set()
        writer.close()

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        sending = asyncio.create_task(transport(f"smtps://127.0.0.1:{port}").send(letter()))
        await asyncio.sleep(0.1)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        await asyncio.wait_for(closed.wait(), 30)


async def test_closing_does_not_wait_for_a_server_that_does_not_respond_to_quit(
    transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(smtp, "QUIT_SECONDS", 0.1)
    closed = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 ready\r\n")
        async for line in reader:
            if line.startswith(b"DATA"):
                writer.write(b"354 go ahead\r\n")
                await reader.readuntil(b"\r\n.\r\n")
            if not line.startswith(b"QUIT"):
                writer.write(b"250 OK\r\n")
        closed.set()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        one = transport(f"smtp://127.0.0.1:{server.sockets[0].getsockname()[1]}", plaintext_on_loopback=True)
        await one.send(letter())
        await asyncio.wait_for(one.close(), 10)  # seconds; the limit for other commands is 60
        await asyncio.wait_for(closed.wait(), 10)


async def test_a_check_sends_nothing(plain: MailServer, transport: Transport) -> None:
    await in_plain(transport, plain).check()
    assert plain.sessions == set()
