"""The token of a service account, renewed by one thread at a time while the others wait."""

import time
from threading import Lock
from typing import Any, NamedTuple

import grpc

from accord.services.v1.services_pb2_grpc import TokenServiceStub
from accord_client.call_failed import CallFailed
from accord_client.credentials import Header, ServiceAccount
from accord_client.errors import DeadlineExceeded
from accord_client.service_tokens import Token, token_request


class Renewal:
    def __init__(self, account: ServiceAccount, issuing: TokenServiceStub) -> None:
        self._request = token_request(account)
        self._issuing = issuing
        self._lock = Lock()
        self._token: Token | None = None
        self._asked: _Asked | None = None  # whose end all who need a token wait for

    def header(self, time_left: float | None) -> Header:
        """With a good token, which may take a call. A renewal that fails is no fault while the token before it is good."""
        with self._lock:
            token = self._token
            if token and not token.is_due():
                return token.header
            if self._asked is None or self._asked.has_failed():
                self._asked = _Asked(self._issuing.IssueToken.future(self._request), time.monotonic())
            asked = self._asked
        try:
            return self._renewed(asked, time_left).header
        except CallFailed:
            if token and token.is_good():
                return token.header
            raise

    def refused(self, header: Header) -> None:
        """The token is not accepted any more: unless there is another one by now, the next caller renews it."""
        with self._lock:
            if self._token and self._token.header == header:
                self._token = None

    def _renewed(self, asked: "_Asked", time_left: float | None) -> Token:
        try:
            token = Token.of(asked.answer.result(time_left), asked.at)
        except grpc.FutureTimeoutError:
            raise DeadlineExceeded("The token of the service was not renewed before the deadline.") from None
        with self._lock:
            if self._asked is asked:  # the first to look keeps it for all
                self._asked, self._token = None, token
        return token


class _Asked(NamedTuple):
    """A call for a token, which goes on when those who wait for it give up."""

    answer: Any
    at: float

    def has_failed(self) -> bool:
        return self.answer.done() and self.answer.exception() is not None
