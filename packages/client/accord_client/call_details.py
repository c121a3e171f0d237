"""What the client adds to a call: its deadline, its request ids and its credential."""

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
class CallDetails(grpc.ClientCallDetails):
    """The details that an interceptor passes on, for grpc and grpc.aio."""

    method: Any  # str, or bytes in grpc.aio
    timeout: float | None
    metadata: Metadata
    credentials: grpc.CallCredentials | None
    wait_for_ready: bool | None
    compression: grpc.Compression | None = None


class CallerDetails(Protocol):
    """The details that an interceptor receives. In grpc.aio, `method` is bytes and there is no compression."""

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


class OutgoingCall:
    """What all attempts at a call share."""

    def __init__(self, caller_details: CallerDetails, methods: Methods) -> None:
        self._caller_details = caller_details
        path = caller_details.method.decode() if isinstance(caller_details.method, bytes) else caller_details.method
        self._method = methods.get(path)
        self._metadata = tuple((name, value) for name, value in caller_details.metadata or ())
        names = dict(self._metadata)
        self.needs_credential = not (names.keys() & CREDENTIAL_HEADERS or (self._method and self._method.public))
        self.request_id = str(names.get(REQUEST_ID_HEADER) or uuid4().hex)
        if REQUEST_ID_HEADER not in names:
            self._metadata += ((REQUEST_ID_HEADER, self.request_id),)
        timeout = caller_details.timeout
        if timeout is None and self._method is not None:
            timeout = self._method.default_deadline
        self._ends_at = None if timeout is None else time.monotonic() + timeout

    def time_left(self) -> float | None:
        """Seconds until the deadline, which all attempts share. None without a deadline."""
        return None if self._ends_at is None else self._ends_at - time.monotonic()

    def details(self, credential: Header | None) -> CallDetails:
        return CallDetails(
            method=self._caller_details.method,
            timeout=self.time_left(),
            metadata=(*self._metadata, credential) if credential else self._metadata,
            credentials=self._caller_details.credentials,
            wait_for_ready=self._caller_details.wait_for_ready,
            compression=getattr(self._caller_details, "compression", None),
        )

    def request(self, request: R) -> R:
        """A copy of the request with a request id, by which the server recognizes a retry. The caller's message is not
        changed: if it is sent in another call, that call is another request."""
        if self._method is None or not self._method.takes_request_id or cast(Any, request).request_id:
            return request
        copy = type(request)()
        cast(Message, copy).CopyFrom(cast(Message, request))
        setattr(copy, REQUEST_ID, str(uuid4()))
        return copy
