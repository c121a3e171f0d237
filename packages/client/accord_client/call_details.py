"""A call as it leaves: with a deadline, with ids under which it is found and repeated, and with a credential."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, cast
from uuid import uuid4

import grpc
from google.protobuf.message import Message

from accord_client.contract import REQUEST_ID, Methods
from accord_client.credentials import Header

CREDENTIAL_HEADERS = frozenset({"authorization", "x-api-key"})
REQUEST_ID_HEADER = "x-request-id"

Metadata = tuple[tuple[str, str | bytes], ...]
R = TypeVar("R")


@dataclass(frozen=True)
class Details(grpc.ClientCallDetails):
    """What gRPC wants to know of a call, with threads and with asyncio."""

    method: Any  # as it was given
    timeout: float | None
    metadata: Metadata
    credentials: grpc.CallCredentials | None
    wait_for_ready: bool | None
    compression: grpc.Compression | None = None


class Given(Protocol):
    """The details as the caller left them. With asyncio the method is bytes, and there is no compression."""

    @property
    def method(self) -> str | bytes: ...
    @property
    def timeout(self) -> float | None: ...
    @property
    def metadata(self) -> Iterable[tuple[str, str | bytes]] | None: ...
    @property
    def credentials(self) -> grpc.CallCredentials | None: ...
    @property
    def wait_for_ready(self) -> bool | None: ...


class Outgoing:
    """What is settled once for a call, however often it is sent."""

    def __init__(self, given: Given, methods: Methods) -> None:
        self._given = given
        path = given.method.decode() if isinstance(given.method, bytes) else given.method
        self._method = methods.get(path)
        self._metadata = tuple((name, value) for name, value in given.metadata or ())
        names = dict(self._metadata)
        self.wants_credential = not (names.keys() & CREDENTIAL_HEADERS or (self._method and self._method.public))
        self.request_id = str(names.get(REQUEST_ID_HEADER) or uuid4().hex)
        if REQUEST_ID_HEADER not in names:
            self._metadata += ((REQUEST_ID_HEADER, self.request_id),)
        timeout = given.timeout
        if timeout is None and self._method is not None:
            timeout = self._method.default_deadline
        self._ends = None if timeout is None else time.monotonic() + timeout

    def time_left(self) -> float | None:
        """Seconds, from the first attempt on. None if the call may take for ever."""
        return None if self._ends is None else self._ends - time.monotonic()

    def details(self, credential: Header | None) -> Details:
        return Details(
            method=self._given.method,
            timeout=self.time_left(),
            metadata=(*self._metadata, credential) if credential else self._metadata,
            credentials=self._given.credentials,
            wait_for_ready=self._given.wait_for_ready,
            compression=getattr(self._given, "compression", None),
        )

    def request(self, request: R) -> R:
        """The request with an id to repeat it by. A copy: another call with the caller's own message is another request."""
        if self._method is None or not self._method.takes_request_id or cast(Any, request).request_id:
            return request
        copy = type(request)()
        cast(Message, copy).CopyFrom(cast(Message, request))
        setattr(copy, REQUEST_ID, str(uuid4()))
        return copy
