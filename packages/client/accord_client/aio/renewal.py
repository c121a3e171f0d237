"""The token of a service account, renewed by one task at a time while the others wait."""

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


class Renewal:
    def __init__(self, account: ServiceAccount, issuing: "Callable[[], TokenServiceAsyncStub]") -> None:
        self._request = token_request(account)
        self._issuing = issuing
        self._token: Token | None = None
        self._asking: asyncio.Task[Token] | None = None  # whose end all who need a token wait for

    async def header(self, time_left: float | None) -> Header:
        """With a good token, which may take a call. A renewal that fails is no fault while the token before it is good."""
        token = self._token
        if token and not token.is_due():
            return token.header
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask())
            self._asking.add_done_callback(self._ended)
        try:
            # The one who began may give up, and those who wait with them need the token all the same.
            return (await asyncio.wait_for(asyncio.shield(self._asking), time_left)).header
        except TimeoutError:
            raise DeadlineExceeded("The token of the service was not renewed before the deadline.") from None
        except CallFailed:
            if token and token.is_good():
                return token.header
            raise

    def refused(self, header: Header) -> None:
        """The token is not accepted any more: unless there is another one by now, the next caller renews it."""
        if self._token and self._token.header == header:
            self._token = None

    async def _ask(self) -> Token:
        asked_at = time.monotonic()
        return Token.of(await self._issuing().IssueToken(self._request), asked_at)

    def _ended(self, asking: "asyncio.Task[Token]") -> None:
        self._asking = None
        if not asking.cancelled() and asking.exception() is None:
            self._token = asking.result()
