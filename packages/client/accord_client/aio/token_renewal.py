"""Renews the token of a service account. Calls that need a token at the same time share one renewal."""

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from accord_client.call_failed import CallFailed
from accord_client.credentials import Header, ServiceAccount
from accord_client.errors import DeadlineExceeded
from accord_client.service_tokens import Token, token_request

if TYPE_CHECKING:
    from accord.services.v1.services_pb2_grpc import TokenServiceAsyncStub


class TokenRenewal:
    def __init__(self, account: ServiceAccount, token_service: "Callable[[], TokenServiceAsyncStub]") -> None:
        self._request = token_request(account)
        self._token_service = token_service
        self._token: Token | None = None
        self._running: asyncio.Task[Token] | None = None

    async def header(self, time_left: float | None) -> Header:
        """Renews a token that is due. If that fails, the previous token serves until it expires."""
        token = self._token
        if token and not token.is_due():
            return token.header
        if self._running is None:
            self._running = asyncio.create_task(self._renew())
            self._running.add_done_callback(self._ended)
        try:
            # Shielded: other calls wait for the same renewal after this one gives up.
            return (await asyncio.wait_for(asyncio.shield(self._running), time_left)).header
        except TimeoutError:
            raise DeadlineExceeded("The token of the service account was not renewed before the deadline.") from None
        except CallFailed:
            if token and token.is_valid():
                return token.header
            raise

    def reject(self, header: Header) -> None:
        """The server rejects this token. The next call renews it, unless it has already been replaced."""
        if self._token and self._token.header == header:
            self._token = None

    async def _renew(self) -> Token:
        requested_at = time.monotonic()
        return Token.of(await self._token_service().IssueToken(self._request), requested_at)

    def _ended(self, renewal: "asyncio.Task[Token]") -> None:
        self._running = None
        if not renewal.cancelled() and renewal.exception() is None:
            self._token = renewal.result()
