"""Renews the token of a service account. Calls that need a token at the same time share one renewal."""

import time
from threading import Lock
from typing import Any, NamedTuple

import grpc

from accord.services.v1.services_pb2_grpc import TokenServiceStub
from accord_client.call_failed import CallFailed
from accord_client.credentials import Header, ServiceAccount
from accord_client.errors import DeadlineExceeded
from accord_client.service_tokens import Token, token_request


class TokenRenewal:
    def __init__(self, account: ServiceAccount, token_service: TokenServiceStub) -> None:
        self._request = token_request(account)
        self._token_service = token_service
        self._lock = Lock()
        self._token: Token | None = None
        self._running: _TokenCall | None = None

    def header(self, time_left: float | None) -> Header:
        """Renews a token that is due. If that fails, the previous token serves until it expires."""
        with self._lock:
            token = self._token
            if token and not token.is_due():
                return token.header
            if self._running is None or self._running.has_failed():
                self._running = _TokenCall(self._token_service.IssueToken.future(self._request), time.monotonic())
            running = self._running
        try:
            return self._result(running, time_left).header
        except CallFailed:
            if token and token.is_valid():
                return token.header
            raise

    def reject(self, header: Header) -> None:
        """The server rejects this token. The next call renews it, unless it has already been replaced."""
        with self._lock:
            if self._token and self._token.header == header:
                self._token = None

    def _result(self, running: "_TokenCall", time_left: float | None) -> Token:
        try:
            token = Token.of(running.call.result(time_left), running.started_at)
        except grpc.FutureTimeoutError:
            raise DeadlineExceeded("The token of the service account was not renewed before the deadline.") from None
        with self._lock:
            if self._running is running:  # the first of the waiting threads stores it
                self._running, self._token = None, token
        return token


class _TokenCall(NamedTuple):
    """A call of IssueToken. It continues after a thread that waits for it gives up."""

    call: Any
    started_at: float

    def has_failed(self) -> bool:
        return self.call.done() and self.call.exception() is not None
