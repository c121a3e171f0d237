"""Sends the messages of the outbox. Every process runs a sender. A claim in the database gives each message to one of them.

A message is deleted after the mail server has accepted it, so no message is lost. A process that is killed between the two
leaves a message that is sent again with the same Message-ID: SMTP has no exactly-once delivery.
"""

import asyncio
import random
from collections.abc import Coroutine
from contextlib import suppress
from datetime import timedelta
from typing import Any, TypeVar
from uuid import UUID

import structlog

from accord_api.outbox import Content, Mail
from accord_auth import encryption
from accord_db.engine.database import Database
from accord_db.engine.errors import DatabaseError
from accord_db.queries import outbox
from accord_db.queries.outbox import ClaimedMessage
from accord_gateway.mail.letters import Letter, Letters, lifetime
from accord_gateway.mail.metrics import MailMetrics
from accord_gateway.mail.transport import (
    Deferred,
    Expired,
    NotSent,
    Rejected,
    Transport,
    Undecipherable,
    Unreachable,
    Unwritable,
)

POLL_SECONDS = 5.0  # notifications can be lost
MIN_POLL_SECONDS = 0.1
SEND_SECONDS = 120.0
LEASE = timedelta(minutes=5)  # longer than a send can take, or two senders would send the same message
FIRST_DELAY = 5.0  # seconds; doubled after every attempt
MAX_DELAY = 3600.0  # seconds between two attempts with one message
MAX_OUTAGE_DELAY = 60.0  # seconds between two attempts to reach the mail server

# Shutdown: the time for the current send, and then for the queries that postpone its message.
STOP_SECONDS = 3.0
POSTPONE_SECONDS = 1.0

T = TypeVar("T")


class Sender:
    def __init__(
        self, database: Database, keys: encryption.Keyring, letters: Letters, transport: Transport, metrics: MailMetrics
    ) -> None:
        self._db = database
        self._keys = keys
        self._letters = letters
        self._transport = transport
        self._metrics = metrics
        self._log = structlog.get_logger()
        self._wake = asyncio.Event()
        self._sending: asyncio.Timeout | None = None  # the time limit of the current send
        self._sent: list[UUID] = []  # sent, and not deleted yet
        self._outages = 0  # in a row

    def wake(self, _payload: str = "") -> None:
        """The outbox may have a new message."""
        self._wake.set()

    async def run(self) -> None:
        """Runs until it is cancelled. The current send then has STOP_SECONDS to complete."""
        while True:
            self._wake.clear()
            try:
                await self._send_due()
                await self._sleep(await self._seconds_until_due())
            except Unreachable:
                await asyncio.sleep(_delay(self._outages, MAX_OUTAGE_DELAY))
            except DatabaseError as error:
                self._log.warning("mail_waits_for_the_database", reason=str(error))
                await asyncio.sleep(POLL_SECONDS)

    async def _sleep(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()

    async def _seconds_until_due(self) -> float:
        waiting = await outbox.get_outbox_summary(self._db)
        self._metrics.waiting.set(waiting.messages)
        due = waiting.next_due_in
        return POLL_SECONDS if due is None else min(max(due.total_seconds(), MIN_POLL_SECONDS), POLL_SECONDS)

    async def _send_due(self) -> None:
        """Sends all due messages over one connection. Raises Unreachable, DatabaseError."""
        try:
            while await self._completed(self._send_next()):
                pass
        finally:
            await self._transport.close()

    async def _completed(self, work: Coroutine[Any, Any, T]) -> T:
        """Delays a cancellation until the work is done, within the limits of a shutdown."""
        task = asyncio.create_task(work)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            self._shorten_send()
            await asyncio.wait([task], timeout=STOP_SECONDS + POSTPONE_SECONDS)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            raise

    def _shorten_send(self) -> None:
        """A send that runs into the shorter limit is recorded as a failure like any other, so its message is soon due again."""
        if self._sending is None or self._sending.expired():
            return
        limit = asyncio.get_running_loop().time() + STOP_SECONDS
        self._sending.reschedule(min(limit, self._sending.when() or limit))

    async def _send_next(self) -> bool:
        """Returns whether a message was due. Raises Unreachable, DatabaseError."""
        await self._delete_sent()
        message = await outbox.claim_message(self._db, lease=LEASE)
        if message is None:
            return False
        try:
            await self._send(message)
        except NotSent as failure:
            await self._record_failure(message, failure)
        else:
            self._outages = 0
            self._metrics.sent.labels(message.template).inc()
            self._log.info("mail_sent", template=message.template, message_id=str(message.id))
            self._sent.append(message.id)
            await self._delete_sent()
        return True

    async def _send(self, message: ClaimedMessage) -> None:
        """Raises NotSent."""
        if message.age > lifetime(message.template):
            raise Expired("it could not be sent in time")
        letter = self._write(message)
        try:
            async with asyncio.timeout(SEND_SECONDS) as self._sending:
                await self._transport.send(letter)
        except TimeoutError:
            raise Deferred("the mail server did not accept it in time") from None
        except NotSent:
            raise
        except Exception as error:  # noqa: BLE001  # an unexpected error must not block the other messages
            raise Unwritable(type(error).__name__) from None
        finally:
            self._sending = None

    def _write(self, message: ClaimedMessage) -> Letter:
        """Raises NotSent. Errors are reported by type: their texts may contain the recipient or a token."""
        try:
            content = Content.opened(message.content, self._keys, message.id)
            mail = Mail(message.template)
            return self._letters.write(mail, content, message_id=message.id, created_at=message.created_at)
        except encryption.Undecipherable:
            raise Undecipherable("no configured key decrypts it") from None
        except Exception as error:  # noqa: BLE001  # as above
            raise Unwritable(type(error).__name__) from None

    async def _record_failure(self, message: ClaimedMessage, failure: NotSent) -> None:
        """Deletes or postpones the message. Raises Unreachable again: the other messages would fail as well."""
        self._metrics.failed.labels(message.template, failure.kind).inc()
        given_up = isinstance(failure, Rejected)
        self._log.warning(
            "mail_given_up" if given_up else "mail_not_sent",
            template=message.template,
            message_id=str(message.id),
            attempts=message.attempts,
            kind=failure.kind,
            reason=str(failure),
        )
        if given_up:
            await outbox.delete_message(self._db, message_id=message.id)
        elif isinstance(failure, Unreachable):
            self._outages += 1
            await self._postpone(message, _delay(self._outages, MAX_OUTAGE_DELAY))
            raise failure
        else:
            await self._postpone(message, _delay(message.attempts, MAX_DELAY))

    async def _postpone(self, message: ClaimedMessage, seconds: float) -> None:
        delay = timedelta(seconds=seconds)
        await outbox.postpone_message(self._db, message_id=message.id, attempts=message.attempts, delay=delay)

    async def _delete_sent(self) -> None:
        """Runs again before the next send, in case the database was unavailable: otherwise the lease would end, and the
        message would be sent a second time."""
        while self._sent:
            await outbox.delete_message(self._db, message_id=self._sent[-1])
            self._sent.pop()


def _delay(attempts: int, longest: float) -> float:
    """Exponential backoff with jitter, in seconds."""
    doubled: float = FIRST_DELAY * 2 ** min(attempts - 1, 20)
    return min(doubled, longest) * random.uniform(0.5, 1)  # noqa: S311  # not a secret
