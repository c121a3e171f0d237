"""SMTP with a real server: nothing leaves without TLS that is verified, and what is answered is understood."""

import socket
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread

import pytest
import trustme
from pydantic import SecretStr

from accord_api.outbox import Content, Mail
from accord_db.engine.ids import uuid7
from accord_gateway.mail.letters import Letter, Letters
from accord_gateway.mail.smtp import SmtpServer, SmtpTransport
from accord_gateway.mail.transport import Deferred, NotSent, Rejected, Unreachable
from accord_gateway.mail.wiring import smtp_transport
from accord_gateway.settings import Settings
from tests.gateway.conftest import eventually, free_port
from tests.gateway.mail_server import Authority, MailServer, mail_server, serving

Transport = Callable[..., SmtpTransport]


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    """One that this process trusts."""
    authority = Authority.new(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    return authority


@pytest.fixture
def plain() -> Iterator[MailServer]:
    with mail_server() as server:
        yield server


@pytest.fixture
def transport() -> Iterator[Transport]:
    made: list[SmtpTransport] = []

    def transport(url: str, *, plain_on_loopback: bool = False) -> SmtpTransport:
        made.append(SmtpTransport(SmtpServer.of(url, plain_on_loopback=plain_on_loopback), greet_as="example.org"))
        return made[-1]

    yield transport
    for each in made:
        each.close()


def letter(to: str = "ada@example.com") -> Letter:
    letters = Letters(mail_from="Example <no@example.org>", app_url="https://app.example.org")
    content = Content(to, {"display_name": "Ada"})
    return letters.write(Mail.PASSWORD_CHANGED, content, message_id=uuid7(), created_at=datetime.now(UTC))


def in_plain(transport: Transport, server: MailServer) -> SmtpTransport:
    return transport(f"smtp://127.0.0.1:{server.port}", plain_on_loopback=True)


def test_a_letter_arrives_over_starttls(authority: Authority, transport: Transport) -> None:
    with mail_server(tls_context=authority.context(), require_starttls=True) as server:
        transport(f"smtp://127.0.0.1:{server.port}").send(sent := letter())
    [received] = server.received
    assert received.encrypted
    assert (received.sender, received.recipients) == ("no@example.org", ["ada@example.com"])
    assert received.message["Message-ID"] == sent.message["Message-ID"]
    assert "Hello Ada," in received.text
    assert "Hello Ada," in received.html


def test_a_letter_arrives_over_tls_from_the_first_byte(authority: Authority, transport: Transport) -> None:
    with mail_server(ssl_context=authority.context()) as server:
        transport(f"smtps://127.0.0.1:{server.port}").send(letter())
    assert [received.encrypted for received in server.received] == [True]


@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
@pytest.mark.parametrize("wrong", ["authority", "name"])
def test_a_certificate_that_cannot_be_trusted_ends_it(
    authority: Authority, transport: Transport, scheme: str, wrong: str
) -> None:
    shown = Authority(authority.file, trustme.CA()) if wrong == "authority" else authority
    context = shown.context("mail.example.com" if wrong == "name" else "127.0.0.1")
    options = {"ssl_context": context} if scheme == "smtps" else {"tls_context": context}
    with (
        mail_server(**options, authenticator=None) as server,
        pytest.raises(Unreachable, match="its certificate cannot be trusted"),
    ):
        transport(f"{scheme}://ada:secret@127.0.0.1:{server.port}").send(letter())
    assert server.sessions == set()
    assert server.logins == []


def test_without_starttls_nothing_is_said_not_even_the_password(plain: MailServer, transport: Transport) -> None:
    with pytest.raises(Unreachable, match="STARTTLS"):
        transport(f"smtp://ada:secret@127.0.0.1:{plain.port}").send(letter())
    assert plain.sessions == set()
    assert plain.logins == []


def test_plain_text_is_for_loopback_in_development_alone(plain: MailServer, transport: Transport) -> None:
    in_plain(transport, plain).send(letter())
    assert [received.encrypted for received in plain.received] == [False]
    for url, allowed in (("smtp://mail.example.com", True), ("smtps://127.0.0.1", True), ("smtp://127.0.0.1", False)):
        assert not SmtpServer.of(url, plain_on_loopback=allowed).plain


def test_production_demands_tls_of_this_machine_too(plain: MailServer) -> None:
    url = SecretStr(f"smtp://127.0.0.1:{plain.port}")
    in_development, in_production = (
        smtp_transport(Settings.model_validate({"accord_env": environment, "smtp_url": url}))
        for environment in ("development", "production")
    )
    assert in_development is not None
    assert in_production is not None
    in_development.check()
    with pytest.raises(Unreachable, match="STARTTLS"):
        in_production.check()


@pytest.mark.parametrize(
    ("url", "port"), [("smtp://mail", 587), ("smtps://mail", 465), ("smtp://mail:25", 25), ("smtps://[::1]:2525", 2525)]
)
def test_ports_are_those_of_submission_unless_told(url: str, port: int) -> None:
    assert SmtpServer.of(url, plain_on_loopback=False).port == port


def test_a_user_logs_in_with_what_the_url_says(authority: Authority, transport: Transport) -> None:
    server = MailServer(free_port(), password=b"p@ss/w:rd")
    options = {"tls_context": authority.context(), "authenticator": server.authenticate, "auth_required": True}
    with serving(server, **options):
        transport(f"smtp://ada%40example.org:p%40ss%2Fw%3Ard@127.0.0.1:{server.port}").send(letter())
    assert server.logins == [(b"ada@example.org", b"p@ss/w:rd")]
    assert len(server.received) == 1


def test_a_wrong_password_is_no_fault_of_the_letter(authority: Authority, transport: Transport) -> None:
    server = MailServer(free_port(), password=b"another")
    options = {"tls_context": authority.context(), "authenticator": server.authenticate, "auth_required": True}
    with serving(server, **options):
        with pytest.raises(Unreachable, match="535") as fault:
            transport(f"smtp://ada:secret@127.0.0.1:{server.port}").send(letter())
        with pytest.raises(Unreachable, match="530"):
            transport(f"smtp://127.0.0.1:{server.port}").send(letter())
    assert "secret" not in str(fault.value)
    assert server.received == []


def test_the_password_is_not_shown() -> None:
    assert "secret" not in repr(SmtpServer.of("smtp://ada:secret@mail", plain_on_loopback=False))


def test_one_connection_serves_a_burst_and_is_closed_after_it(plain: MailServer, transport: Transport) -> None:
    one = in_plain(transport, plain)
    for _ in range(3):
        one.send(letter())
    assert len(plain.sessions) == 1
    one.close()
    one.send(letter())
    assert len(plain.received) == 4
    assert len(plain.sessions) == 2


@pytest.mark.parametrize(
    ("command", "answer", "kind"),
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
def test_answers_are_understood_and_the_next_letter_is_sent(
    plain: MailServer, transport: Transport, command: str, answer: str, kind: type[NotSent]
) -> None:
    plain.answers[command] = [answer]
    one = in_plain(transport, plain)
    with pytest.raises(NotSent) as fault:
        one.send(letter())
    assert type(fault.value) is kind
    assert "ada@example.com" not in str(fault.value)
    assert plain.received == []
    one.send(letter())
    assert len(plain.received) == 1


def test_a_server_that_is_not_there_is_unreachable(transport: Transport) -> None:
    with pytest.raises(Unreachable, match="refused"):
        transport(f"smtp://127.0.0.1:{free_port()}").send(letter())
    with pytest.raises(Unreachable):
        transport("smtp://no-such-host.invalid").send(letter())


def test_a_server_that_speaks_something_else_is_unreachable(transport: Transport) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:

        def answer() -> None:
            with other.accept()[0] as caller:
                caller.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        answering = Thread(target=answer)
        answering.start()
        with pytest.raises(Unreachable):
            transport(f"smtp://127.0.0.1:{other.getsockname()[1]}", plain_on_loopback=True).send(letter())
        answering.join()


def test_an_address_that_is_not_ascii_needs_a_server_that_knows_such(transport: Transport) -> None:
    with mail_server(enable_SMTPUTF8=True) as server:
        in_plain(transport, server).send(letter("jörg@bücher.example"))
    assert server.received[0].recipients == ["jörg@xn--bcher-kva.example"]


def test_an_address_that_is_not_ascii_is_rejected_where_the_server_does_not(transport: Transport) -> None:
    with mail_server(enable_SMTPUTF8=False) as server, pytest.raises(Rejected, match="SMTPUTF8"):
        in_plain(transport, server).send(letter("jörg@example.com"))


def test_an_abort_ends_a_letter_that_is_under_way(plain: MailServer, transport: Transport) -> None:
    plain.stuck.set()
    one, ended = in_plain(transport, plain), list[NotSent]()

    def send() -> None:
        with pytest.raises(Deferred) as fault:
            one.send(letter())
        ended.append(fault.value)

    sending = Thread(target=send)
    sending.start()
    assert plain.arrived.wait(30)
    one.abort()
    sending.join(30)
    eventually(lambda: ended or None)
    plain.stuck.clear()
    one.send(letter())


def test_a_check_sends_nothing(plain: MailServer, transport: Transport) -> None:
    in_plain(transport, plain).check()
    assert plain.sessions == set()
