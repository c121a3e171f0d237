"""Sends what is in the outbox. Every process has a sender, and a claim sees to it that a message has only one.

A message is deleted after a mail server has taken it, so none is lost: whoever dies in between leaves one that is sent
again, with the same Message-ID. SMTP has no way to hand something over exactly once.
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
from accord_gateway.mail.letters import Letter, Letters, useful_for
from accord_gateway.mail.metrics import MailMetrics
from accord_gateway.mail.threads import in_thread
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

LOOK_EVERY = 5.0  # seconds, if nobody wakes us: a notice may be lost
LOOK_AGAIN = 0.1  # seconds, at least
SEND_SECONDS = 120.0
LEASE = timedelta(minutes=5)  # longer than sending can take, or two would send at once
FIRST_DELAY = 5.0  # seconds; doubled after every attempt
LONGEST_DELAY = 3600.0  # seconds between two attempts with one message
LONGEST_OUTAGE = 60.0  # seconds between two looks at a mail server that is down

# Seconds that a process which stops has for the letter it is sending, and then for the thread that is cut off.
STOP_SECONDS = 3.0
CUT_OFF_SECONDS = 1.0

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
        self._woken = asyncio.Event()
        self._sent: list[UUID] = []  # and not deleted yet
        self._outages = 0  # in a row

    def wake(self, _payload: str = "") -> None:
        """There may be something to send."""
        self._woken.set()

    async def run(self) -> None:
        """Until it is cancelled; a letter that is under way then has a few seconds to arrive."""
        while True:
            self._woken.clear()
            try:
                await self._send_due()
                await self._rest(await self._look_ahead())
            except Unreachable:
                await asyncio.sleep(_delay(self._outages, LONGEST_OUTAGE))
            except DatabaseError as error:
                self._log.warning("mail_waits_for_the_database", reason=str(error))
                await asyncio.sleep(LOOK_EVERY)

    async def _rest(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._woken.wait()

    async def _look_ahead(self) -> float:
        """In how many seconds there may be something to do, if nobody wakes us."""
        waiting = await outbox.get_outbox_summary(self._db)
        self._metrics.waiting.set(waiting.messages)
        due = waiting.next_due_in
        return LOOK_EVERY if due is None else min(max(due.total_seconds(), LOOK_AGAIN), LOOK_EVERY)

    async def _send_due(self) -> None:
        """Over one connection. Raises Unreachable, DatabaseError."""
        try:
            while await self._undisturbed(self._send_next()):
                pass
        finally:
            await in_thread(self._transport.close)

    async def _undisturbed(self, work: Coroutine[Any, Any, T]) -> T:
        task = asyncio.create_task(work)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if not (await asyncio.wait([task], timeout=STOP_SECONDS))[0]:
                self._transport.abort()
                await asyncio.wait([task], timeout=CUT_OFF_SECONDS)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            raise

    async def _send_next(self) -> bool:
        """Whether there was one. Raises Unreachable, DatabaseError."""
        await self._delete_sent()
        message = await outbox.claim_message(self._db, lease=LEASE)
        if message is None:
            return False
        try:
            await self._send(message)
        except NotSent as fault:
            await self._see_what_becomes_of(message, fault)
        else:
            self._outages = 0
            self._metrics.sent.labels(message.template).inc()
            self._log.info("mail_sent", template=message.template, message_id=str(message.id))
            self._sent.append(message.id)
            await self._delete_sent()
        return True

    async def _send(self, message: ClaimedMessage) -> None:
        """Raises NotSent."""
        if message.age > useful_for(message.template):
            raise Expired("it could not be sent in time")
        letter = self._write(message)
        try:
            async with asyncio.timeout(SEND_SECONDS):
                await in_thread(self._transport.send, letter)
        except TimeoutError:
            self._transport.abort()
            raise Deferred(f"it took longer than {SEND_SECONDS:.0f} seconds") from None
        except NotSent:
            raise
        except Exception as error:  # noqa: BLE001  # whatever it is, the other letters are to go out
            raise Unwritable(type(error).__name__) from None

    def _write(self, message: ClaimedMessage) -> Letter:
        """Raises NotSent. Errors are told by their kind: in their texts there may be what nobody is to read."""
        try:
            content = Content.opened(message.content, self._keys, message.id)
            mail = Mail(message.template)
            return self._letters.write(mail, content, message_id=message.id, created_at=message.created_at)
        except encryption.Undecipherable:
            raise Undecipherable("none of the keys opens it") from None
        except Exception as error:  # noqa: BLE001  # as above
            raise Unwritable(type(error).__name__) from None

    async def _see_what_becomes_of(self, message: ClaimedMessage, fault: NotSent) -> None:
        """Raises the fault if it is none of the message's."""
        self._metrics.failed.labels(message.template, fault.kind).inc()
        given_up = isinstance(fault, Rejected)
        self._log.warning(
            "mail_given_up" if given_up else "mail_not_sent",
            template=message.template,
            message_id=str(message.id),
            attempts=message.attempts,
            kind=fault.kind,
            reason=str(fault),
        )
        if given_up:
            await outbox.delete_message(self._db, message_id=message.id)
        elif isinstance(fault, Unreachable):
            self._outages += 1
            await self._postpone(message, _delay(self._outages, LONGEST_OUTAGE))
            raise fault
        else:
            await self._postpone(message, _delay(message.attempts, LONGEST_DELAY))

    async def _postpone(self, message: ClaimedMessage, seconds: float) -> None:
        delay = timedelta(seconds=seconds)
        await outbox.postpone_message(self._db, message_id=message.id, attempts=message.attempts, delay=delay)

    async def _delete_sent(self) -> None:
        """Those first that could not be deleted when they had been sent: or their lease would end, and they would be
        sent again."""
        while self._sent:
            await outbox.delete_message(self._db, message_id=self._sent[-1])
            self._sent.pop()


def _delay(attempts: int, longest: float) -> float:
    """Seconds, ever more of them, and not the same for all that failed together."""
    doubled: float = FIRST_DELAY * 2 ** min(attempts - 1, 20)
    return min(doubled, longest) * random.uniform(0.5, 1)  # noqa: S311  # no secret
