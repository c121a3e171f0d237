"""A channel for generated stubs that calls through a face instead of gRPC, so that tests written for gRPC test every face:
`pytest --face rest tests/api`."""

import asyncio
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from typing import Any, TypeVar, cast

import grpc
import pytest
from google.protobuf.descriptor_pool import Default
from google.protobuf.json_format import SerializeToJsonError
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from tests.api.faces import OVER_HTTP, Ends, Face, Outcome
from tests.api.web import Http

C = TypeVar("C", bound="FaceCall")


class FaceChannel:
    """What stubs use of a `grpc.aio.Channel`, for methods that do not stream their requests."""

    def __init__(self, address: str, face: Face) -> None:
        self._ends = Ends(cast(grpc.aio.Channel, None), Http(address))
        self._face = face

    async def __aenter__(self) -> "FaceChannel":
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._ends.http.close()

    def unary_unary(self, path: str, *serializers: object, **options: object) -> Callable[..., "FaceCall"]:
        return self._caller(path, FaceCall, as_bytes=not (serializers or options))

    def unary_stream(self, path: str, *serializers: object, **options: object) -> Callable[..., "FaceStream"]:
        return self._caller(path, FaceStream, as_bytes=not (serializers or options))

    def _caller(self, path: str, kind: type[C], *, as_bytes: bool) -> Callable[..., C]:
        def call(request: Any, timeout: float | None = None, metadata: Any = (), **others: object) -> C:
            return kind(self._send(path, request, timeout, metadata), as_bytes=as_bytes)

        return call

    def stream_unary(self, path: str, **options: object) -> Callable[..., object]:
        return _unsupported

    stream_stream = stream_unary

    async def _send(
        self,
        path: str,
        request: Message | bytes,
        seconds: float | None,
        metadata: Sequence[tuple[str, str]] | None,
    ) -> Outcome:
        """Skips the test if the face cannot express the call."""
        headers = [("user-agent", "tests"), *(metadata or ())]
        if seconds is not None:
            milliseconds = str(max(1, round(seconds * 1000)))
            headers += [("grpc-timeout", f"{milliseconds}m"), ("connect-timeout-ms", milliseconds)]
        method = Default().FindMethodByName(path[1:].replace("/", "."))
        message = GetMessageClass(method.input_type).FromString(request) if isinstance(request, bytes) else request
        if "" in (paths := getattr(getattr(message, "update_mask", None), "paths", ())):
            pytest.skip(f"JSON has no form for the mask {list(paths)}")
        try:
            if not self._face.can_express(method, message):
                pytest.skip("the path of this method has no form for an empty id")
            return await self._face.call(self._ends, method, message, headers)
        except SerializeToJsonError as error:  # for example a time outside of the calendar
            pytest.skip(str(error))


class FaceCall:
    """As `grpc.aio.UnaryUnaryCall`: it begins when it is made."""

    def __init__(self, sent: Any, *, as_bytes: bool) -> None:
        self._task: asyncio.Task[Outcome] = asyncio.ensure_future(sent)
        self._as_bytes = as_bytes

    def __await__(self) -> Generator[Any, None, Message | bytes]:
        return self._message().__await__()

    async def _message(self) -> Message | bytes:
        result = await self._task
        _raise(result)
        message: Message = result.message
        return message.SerializeToString() if self._as_bytes else message

    async def code(self) -> grpc.StatusCode:
        return grpc.StatusCode[(await self._task).code]

    async def trailing_metadata(self) -> grpc.aio.Metadata:
        return _trailers(await self._task)

    def cancel(self) -> bool:
        return self._task.cancel()

    def done(self) -> bool:
        return self._task.done()


class FaceStream(FaceCall):
    """The messages of a stream that has ended."""

    def __aiter__(self) -> AsyncIterator[Message]:
        return self._messages()

    async def _messages(self) -> AsyncIterator[Message]:
        result = await self._task
        for message in result.messages:
            yield message
        _raise(result)


def face_named(name: str) -> Face:
    return next(face for face in OVER_HTTP if face.name == name)


def _raise(result: Outcome) -> None:
    if (status := result.status) is not None:
        raise grpc.aio.AioRpcError(grpc.StatusCode[result.code], grpc.aio.Metadata(), _trailers(result), status.message)


def _trailers(result: Outcome) -> grpc.aio.Metadata:
    own = [("x-request-id", result.request_id)]
    if result.status is not None:
        own.append(("grpc-status-details-bin", cast(str, result.status.SerializeToString())))
    return grpc.aio.Metadata(*own)


def _unsupported(*arguments: object, **options: object) -> object:
    raise NotImplementedError("faces of browsers do not stream requests")
