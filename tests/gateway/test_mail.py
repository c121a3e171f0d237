"""Mail: committed messages are sent, exactly once unless a process is killed, and at least once if one is."""

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import psycopg
import pytest
from prometheus_client import REGISTRY
from pydantic import SecretStr
from structlog.testing import capture_logs

from accord.accounts.v1.accounts_pb2 import GetAccountRequest, SignInRequest, SignUpRequest, VerifyEmailRequest
from accord.accounts.v1.accounts_pb2_grpc import AccountServiceStub
from accord_api.outbox import Mail, Outbox
from accord_auth.encryption import Keyring
from accord_db import migrate
from accord_db.engine.database import Database, DatabaseSettings
from accord_db.engine.listen import Listener
from accord_gateway.mail import sender as sending
from accord_gateway.mail.files import FilesTransport
from accord_gateway.mail.letters import Letters
from accord_gateway.mail.metrics import mail_metrics
from accord_gateway.mail.sender import Sender
from accord_gateway.mail.smtp import SmtpServer, SmtpTransport
from accord_gateway.mail.transport import Transport
from accord_gateway.mail.wiring import mail_sender
from accord_gateway.process.background_tasks import running
from accord_gateway.secret_key import keyring
from accord_gateway.server.gateway import Runtime
from accord_gateway.settings import Settings
from accord_postgres import EmbeddedPostgres
from tests.conftest import Connect
from tests.gateway.conftest import GatewayProcess, Start, eventually, read_metrics
from tests.gateway.mail_server import Authority, MailServer, mail_server, serving
from tests.ports import free_port

KEYS = Keyring({"now": bytes(range(32))})
PASSWORD = "a sentence that only I know"
WAITING = "SELECT count(*) FROM outbox_messages"
DUE = "UPDATE outbox_messages SET next_attempt_at = now()"


@pytest.fixture
def server() -> Iterator[MailServer]:
    with mail_server() as server:
        yield server


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "FIRST_DELAY", 0.05)
    monkeypatch.setattr(sending, "MAX_OUTAGE_DELAY", 0.2)
    monkeypatch.setattr(sending, "POLL_SECONDS", 0.2)


def over_smtp(server: MailServer) -> SmtpTransport:
    url = f"smtp://127.0.0.1:{server.port}"
    return SmtpTransport(SmtpServer.of(url, plaintext_on_loopback=True), ehlo_name="example.org")


def new_sender(database: Database, transport: Transport, keys: Keyring = KEYS) -> Sender:
    letters = Letters(mail_from="Example <no@example.org>", app_url="https://app.example.org")
    return Sender(database, keys, letters, transport, mail_metrics())


async def post(database: Database, to: str = "ada@example.com", keys: Keyring = KEYS) -> None:
    async with database.transaction() as tx:
        await Outbox(keys).post(tx, Mail.PASSWORD_CHANGED, to=to, display_name="Ada")


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


def execute(dsn: str, statement: str) -> Any:
    """Returns the first row of a SELECT."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchone() if cursor.description else None


def waiting(dsn: str) -> int:
    return int(execute(dsn, WAITING)[0])


def failed(kind: str, template: Mail | str = Mail.PASSWORD_CHANGED) -> float:
    return REGISTRY.get_sample_value("accord_mail_failed_total", {"template": str(template), "kind": kind}) or 0.0


@asynccontextmanager
async def captured_log() -> AsyncIterator[list[Any]]:
    """Fails if the log names the recipient."""
    with capture_logs() as lines:
        yield lines
    assert "ada@" not in str(lines)
    assert "Ada" not in str(lines)


async def test_a_posted_message_is_sent_and_deleted(database: Database, dsn: str, server: MailServer) -> None:
    before = REGISTRY.get_sample_value("accord_mail_sent_total", {"template": "password_changed"}) or 0.0
    await post(database)
    async with captured_log(), running(new_sender(database, over_smtp(server)).run()):
        await until(lambda: not waiting(dsn))
    [received] = server.received
    assert received.recipients == ["ada@example.com"]
    assert "Hello Ada," in received.text
    assert REGISTRY.get_sample_value("accord_mail_sent_total", {"template": "password_changed"}) == before + 1


async def test_waking_the_sender_sends_new_messages(
    database: Database, server: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "POLL_SECONDS", 3600.0)
    sender = new_sender(database, over_smtp(server))
    async with running(sender.run()):
        await post(database)
        sender.wake()
        await until(lambda: server.received)
        await post(database)
        sender.wake()
        await until(lambda: len(server.received) == 2)


async def test_a_commit_wakes_the_sender_of_every_process(
    database: Database, dsn: str, server: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "POLL_SECONDS", 3600.0)
    settings = Settings(smtp_url=SecretStr(f"smtp://127.0.0.1:{server.port}"))
    runtime = Runtime(settings, b"a key for tests only", database, Listener(dsn))
    sender = mail_sender(runtime)
    await runtime.listener.start()
    async with running(sender.run()):
        await until(lambda: runtime.listener.connected)
        for sent in range(1, 4):
            await post(database, keys=keyring(settings, runtime.secret_key))
            await until(lambda: len(server.received) == sent)  # noqa: B023  # awaited at once
    await runtime.listener.close()


@pytest.mark.usefixtures("impatient")
async def test_a_sender_without_notifications_polls(database: Database, server: MailServer) -> None:
    async with running(new_sender(database, over_smtp(server)).run()):
        for sent in range(1, 3):
            await post(database)
            await until(lambda: len(server.received) == sent)  # noqa: B023  # awaited at once


async def test_two_senders_at_once_send_each_of_a_hundred_letters_once(
    connect: Connect, dsn: str, server: MailServer
) -> None:
    databases = [await connect(), await connect()]
    addresses = [f"{number}@example.com" for number in range(100)]
    for address in addresses:
        await post(databases[0], address)
    async with running(*(new_sender(database, over_smtp(server)).run() for database in databases)):
        await until(lambda: not waiting(dsn))
    assert sorted(received.recipients[0] for received in server.received) == sorted(addresses)
    assert len(set(server.ids)) == 100
    assert len(server.sessions) <= 4  # one per burst, not one per letter


async def test_a_message_that_is_rolled_back_is_not_sent(database: Database, dsn: str, server: MailServer) -> None:
    with suppress(ZeroDivisionError):
        async with database.transaction() as tx:
            await Outbox(KEYS).post(tx, Mail.PASSWORD_CHANGED, to="eve@example.com", display_name="Eve")
            raise ZeroDivisionError
    await post(database)
    async with running(new_sender(database, over_smtp(server)).run()):
        await until(lambda: server.received and not waiting(dsn))
    assert [received.recipients for received in server.received] == [["ada@example.com"]]


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("command", "response"), [("RCPT", "450 ada@example.com later"), ("DATA", "451 later"), ("DATA", "cut")]
)
async def test_a_letter_that_is_deferred_is_sent_again(
    database: Database, dsn: str, server: MailServer, command: str, response: str
) -> None:
    server.responses[command] = [response] * 3
    before = failed("deferred")
    await post(database)
    async with captured_log() as lines, running(new_sender(database, over_smtp(server)).run()):
        await until(lambda: not waiting(dsn))
    assert len(server.received) == 1
    assert failed("deferred") == before + 3
    assert [line["attempts"] for line in lines if line["event"] == "mail_not_sent"] == [1, 2, 3]


async def test_a_letter_that_is_rejected_is_deleted_and_the_next_one_sent(
    database: Database, dsn: str, server: MailServer
) -> None:
    server.responses["RCPT"] = ["550 5.1.1 ada@example.com: no such person"]
    before = failed("rejected")
    await post(database)
    await post(database, "bob@example.com")
    async with captured_log() as lines, running(new_sender(database, over_smtp(server)).run()):
        await until(lambda: not waiting(dsn))
    assert [received.recipients for received in server.received] == [["bob@example.com"]]
    assert failed("rejected") == before + 1
    [given_up] = [line for line in lines if line["event"] == "mail_given_up"]
    assert given_up["reason"] == "the server responds 550 to the recipient"


@pytest.mark.usefixtures("impatient")
async def test_a_mail_server_that_was_down_receives_everything_when_it_is_back(database: Database, dsn: str) -> None:
    server = MailServer(free_port())
    before = failed("unreachable")
    for number in range(5):
        await post(database, f"{number}@example.com")
    async with running(new_sender(database, over_smtp(server)).run()):
        await until(lambda: failed("unreachable") >= before + 3)
        assert waiting(dsn) == 5
        with serving(server):
            await until(lambda: not waiting(dsn))
    assert len(set(server.ids)) == len(server.ids) == 5


async def test_while_the_mail_server_is_down_other_letters_are_not_claimed(
    database: Database, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "FIRST_DELAY", 3600.0)
    monkeypatch.setattr(sending, "MAX_OUTAGE_DELAY", 3600.0)
    before = failed("unreachable")
    for _ in range(5):
        await post(database)
    sender = new_sender(database, over_smtp(MailServer(free_port())))
    async with running(sender.run()):
        await until(lambda: failed("unreachable") == before + 1)
        sender.wake()
        await asyncio.sleep(0)
    assert execute(dsn, "SELECT count(*) FROM outbox_messages WHERE attempts > 0") == (1,)


@pytest.mark.usefixtures("impatient")
async def test_a_letter_whose_row_could_not_be_deleted_is_not_sent_again(
    separate_postgres: EmbeddedPostgres, server: MailServer
) -> None:
    dsn = separate_postgres.start()
    migrate.apply(dsn)
    database = await Database.connect(DatabaseSettings(dsn=dsn, pool_size=2))
    server.stuck.set()
    await post(database)
    async with captured_log() as lines, running(new_sender(database, over_smtp(server)).run()):
        await until(server.arrived.is_set)
        separate_postgres.stop()
        server.stuck.clear()
        await until(lambda: [line for line in lines if line["event"] == "mail_waits_for_the_database"])
        separate_postgres.start()
        execute(dsn, DUE)  # as if its lease were over
        await until(lambda: not waiting(dsn))
    await database.close()
    assert len(server.received) == 1


@pytest.mark.usefixtures("impatient")
async def test_a_message_that_no_key_decrypts_waits_for_its_key(
    database: Database, dsn: str, server: MailServer
) -> None:
    lost = Keyring({"lost": bytes(reversed(range(32)))})
    before = failed("undecipherable")
    await post(database, keys=lost)
    await post(database, "bob@example.com")
    async with captured_log(), running(new_sender(database, over_smtp(server)).run()):
        await until(lambda: server.received and failed("undecipherable") >= before + 2)
    assert [received.recipients for received in server.received] == [["bob@example.com"]]
    assert waiting(dsn) == 1
    execute(dsn, DUE)
    async with running(new_sender(database, over_smtp(server), lost).run()):
        await until(lambda: not waiting(dsn))
    assert len(server.received) == 2


@pytest.mark.parametrize(
    ("mail", "since", "sent"),
    [
        (Mail.RESET_PASSWORD, "59 minutes", True),
        (Mail.RESET_PASSWORD, "61 minutes", False),
        (Mail.VERIFY_EMAIL, "23 hours", True),
        (Mail.VERIFY_EMAIL, "25 hours", False),
        (Mail.PASSWORD_CHANGED, "71 hours", True),
        (Mail.PASSWORD_CHANGED, "73 hours", False),
    ],
)
async def test_an_expired_letter_is_deleted(
    database: Database, dsn: str, server: MailServer, mail: Mail, since: str, sent: bool
) -> None:
    before = failed("expired", mail)
    values = {"display_name": "Ada", "token": "acv_token"}
    async with database.transaction() as tx:
        await Outbox(KEYS).post(tx, mail, to="ada@example.com", **{name: values[name] for name in mail.takes})
    execute(dsn, f"UPDATE outbox_messages SET created_at = now() - interval '{since}'")
    async with captured_log() as lines, running(new_sender(database, over_smtp(server)).run()):
        await until(lambda: not waiting(dsn))
    assert bool(server.received) == sent
    assert failed("expired", mail) == before + (not sent)
    assert "acv_token" not in str(lines)


@pytest.mark.parametrize(
    ("corruption", "kind"),
    [
        ("template = 'of_a_later_release'", "faulty"),
        ("content = ''", "undecipherable"),
        ("content = '\\x0102'", "undecipherable"),
    ],
)
async def test_a_broken_message_is_kept_and_does_not_block_others(
    database: Database, dsn: str, server: MailServer, corruption: str, kind: str
) -> None:
    await post(database)
    execute(dsn, f"UPDATE outbox_messages SET {corruption}")
    await post(database, "bob@example.com")
    async with captured_log() as lines, running(new_sender(database, over_smtp(server)).run()):
        await until(lambda: waiting(dsn) == 1)
    assert [line["kind"] for line in lines if line["event"] == "mail_not_sent"] == [kind]
    assert [received.recipients for received in server.received] == [["bob@example.com"]]


async def test_an_unexpected_error_does_not_stop_the_sender(
    database: Database, dsn: str, server: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken_send(*_: object, **__: object) -> None:
        raise AttributeError("ada@example.com")

    with monkeypatch.context() as broken:
        broken.setattr("aiosmtplib.SMTP.send_message", broken_send)
        before = failed("faulty")
        await post(database)
        async with captured_log(), running(new_sender(database, over_smtp(server)).run()):
            await until(lambda: failed("faulty") > before)
    execute(dsn, DUE)
    async with running(new_sender(database, over_smtp(server)).run()):
        await until(lambda: not waiting(dsn))


async def test_an_address_with_a_line_break_is_not_sent(database: Database, dsn: str, server: MailServer) -> None:
    await post(database, "ada@example.com\r\nBcc: eve@example.com")
    await post(database, "bob@example.com")
    async with captured_log() as lines, running(new_sender(database, over_smtp(server)).run()):
        await until(lambda: waiting(dsn) == 1)
    assert [received.recipients for received in server.received] == [["bob@example.com"]]
    assert "eve@" not in str(lines)


async def test_a_stop_lets_the_current_send_complete(database: Database, dsn: str, server: MailServer) -> None:
    server.stuck.set()
    await post(database)
    await post(database)
    async with running(new_sender(database, over_smtp(server)).run()):
        await until(server.arrived.is_set)
        asyncio.get_running_loop().call_later(0.2, server.stuck.clear)
    assert len(server.received) == 1
    assert execute(dsn, "SELECT count(*), max(attempts) FROM outbox_messages") == (1, 0)


async def test_a_stop_cancels_a_send_that_takes_too_long_and_postpones_its_message(
    database: Database, dsn: str, server: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "STOP_SECONDS", 0.1)
    server.stuck.set()
    await post(database)
    async with running(new_sender(database, over_smtp(server)).run()):
        await until(server.arrived.is_set)
    due_soon = "SELECT next_attempt_at < now() + interval '1 minute' FROM outbox_messages"
    assert execute(dsn, due_soon) == (True,)


async def test_a_send_that_takes_too_long_is_cancelled_and_repeated(
    database: Database, dsn: str, server: MailServer, monkeypatch: pytest.MonkeyPatch, impatient: None
) -> None:
    monkeypatch.setattr(sending, "SEND_SECONDS", 0.3)
    server.stuck.set()
    before = failed("deferred")
    await post(database)
    async with running(new_sender(database, over_smtp(server)).run()):
        await until(lambda: failed("deferred") > before)
        monkeypatch.setattr(sending, "SEND_SECONDS", 60)
        server.stuck.clear()
        await until(lambda: not waiting(dsn))
    assert set(server.ids) == {server.ids[0]}


def test_the_lease_is_longer_than_a_send_can_take() -> None:
    assert sending.LEASE.total_seconds() > 2 * sending.SEND_SECONDS


async def test_development_prints_the_letter_and_keeps_it_readable_by_the_owner_only(
    database: Database, dsn: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with database.transaction() as tx:
        await Outbox(KEYS).post(
            tx, Mail.VERIFY_EMAIL, to="ada@example.com", display_name="Ådå", token="acv_" + "x" * 48
        )
    folder = tmp_path / "state" / "mail"
    async with running(new_sender(database, FilesTransport(folder)).run()):
        await until(lambda: not waiting(dsn))
    [file] = folder.iterdir()
    assert (folder.stat().st_mode & 0o777, file.stat().st_mode & 0o777) == (0o700, 0o600)
    assert re.search(rb"^ *acv_x{48}\r$", file.read_bytes(), flags=re.MULTILINE)
    shown = capsys.readouterr().err
    assert "Mail to ada@example.com" in shown
    assert "Hello Ådå," in shown
    assert re.search(r"^ *acv_x{48}$", shown, flags=re.MULTILINE)
    assert str(file) in shown


async def test_a_folder_that_cannot_be_written_is_retried(
    database: Database, dsn: str, tmp_path: Path, impatient: None
) -> None:
    before = failed("unreachable")
    (tmp_path / "mail").write_text("a file, not a folder")
    await post(database)
    async with running(new_sender(database, FilesTransport(tmp_path / "mail")).run()):
        await until(lambda: failed("unreachable") > before)
        (tmp_path / "mail").unlink()
        await until(lambda: not waiting(dsn))


# Gateways as processes.


def sign_up(gateway: GatewayProcess, email: str = "ada@example.com") -> None:
    with grpc.insecure_channel(gateway.address) as channel:
        AccountServiceStub(channel).SignUp(
            SignUpRequest(email=email, password=PASSWORD, display_name="Ada"), timeout=30
        )


def only_token(text: str) -> str:
    [token] = re.findall(r"^ *(acv_[A-Za-z0-9_-]{48})\r?$", text, flags=re.MULTILINE)
    return str(token)


def verified(gateway: GatewayProcess, token: str) -> bool:
    with grpc.insecure_channel(gateway.address) as channel:
        accounts = AccountServiceStub(channel)
        accounts.VerifyEmail(VerifyEmailRequest(token=token), timeout=30)
        session = accounts.SignIn(SignInRequest(email="ada@example.com", password=PASSWORD), timeout=30).session_token
        me = (("authorization", f"Bearer {session}"),)
        return bool(
            accounts.GetAccount(GetAccountRequest(), metadata=me, timeout=30).account.HasField("email_verified_at")
        )


def test_the_token_mailed_by_sign_up_verifies_the_address(start: Start, database_url: str, tmp_path: Path) -> None:
    authority, port = Authority.new(tmp_path), free_port()
    with mail_server(ssl_context=authority.context()) as server:
        gateway = start(
            DATABASE_URL=database_url,
            SMTP_URL=f"smtps://127.0.0.1:{server.port}",
            SSL_CERT_FILE=authority.file,
            MAIL_FROM="Example <no@example.org>",
            APP_URL="https://app.example.org",
            METRICS_PORT=port,
        )
        sign_up(gateway)
        eventually(lambda: server.received or None, gateway)
        token = only_token(server.received[0].text)
        assert f"https://app.example.org/verify-email#token={token}" in server.received[0].html
        assert verified(gateway, token)
        assert 'accord_mail_sent_total{template="verify_email"} 1.0' in read_metrics(port)
        assert gateway.stop() == 0
    assert "ada@example.com" not in str(gateway.events)
    assert token not in gateway.output


def test_development_without_a_mail_server_prints_the_token(start: Start, database_url: str, tmp_path: Path) -> None:
    gateway = start(DATABASE_URL=database_url)
    sign_up(gateway)
    shown = eventually(lambda: re.search(r"^ *acv_.*\n(?:.*\n)*?\n", gateway.output, flags=re.MULTILINE), gateway)
    [kept] = (tmp_path / ".accord" / "mail").glob("*.eml")
    assert only_token(shown.group()) == only_token(kept.read_text())
    assert verified(gateway, only_token(shown.group()))


def test_the_next_gateway_sends_what_a_killed_gateway_was_sending(
    start: Start, database_url: str, dsn: str, server: MailServer
) -> None:
    settings = {"DATABASE_URL": database_url, "SMTP_URL": f"smtp://127.0.0.1:{server.port}"}
    server.stuck.set()
    gateway = start(**settings)
    for number in range(3):
        sign_up(gateway, f"{number}@example.com")
    assert server.arrived.wait(60)
    os.killpg(gateway.process.pid, signal.SIGKILL)
    gateway.process.wait()
    server.stuck.clear()
    assert waiting(dsn) == 3
    execute(dsn, DUE)  # as if the lease of the first were over
    start(**settings)
    eventually(lambda: not waiting(dsn) or None)
    assert {received.recipients[0] for received in server.received} == {f"{number}@example.com" for number in range(3)}
    assert len(server.arrived_ids) == 4
    assert set(server.arrived_ids) == set(server.ids)  # a repeated message keeps its id
    assert len(set(server.ids)) == 3


def test_a_sign_up_that_is_rolled_back_mails_nothing(
    start: Start, database_url: str, dsn: str, server: MailServer
) -> None:
    refuse = """
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '23514'; END $$;
        CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON accounts DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION refuse()
    """
    gateway = start(DATABASE_URL=database_url, SMTP_URL=f"smtp://127.0.0.1:{server.port}")
    gateway.event("listening")
    execute(dsn, refuse)
    with pytest.raises(grpc.RpcError):
        sign_up(gateway, "eve@example.com")
    execute(dsn, "DROP TRIGGER refuse ON accounts")
    sign_up(gateway)
    eventually(lambda: server.received or None, gateway)
    assert gateway.stop() == 0
    assert [received.recipients for received in server.received] == [["ada@example.com"]]


def test_a_gateway_with_a_mail_server_that_is_down_serves_and_stops(start: Start, database_url: str) -> None:
    gateway = start(DATABASE_URL=database_url, SMTP_URL=f"smtp://127.0.0.1:{free_port()}")
    sign_up(gateway)
    assert gateway.event("mail_not_sent")["kind"] == "unreachable"
    assert gateway.stop() == 0
