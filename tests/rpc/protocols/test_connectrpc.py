"""The official Python client of Connect as a peer, for every kind of call."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

import pytest
from connectrpc.client import ConnectClient
from connectrpc.code import Code
from connectrpc.compat import google_protobuf_binary_codec, google_protobuf_json_codec
from connectrpc.errors import ConnectError
from connectrpc.method import IdempotencyLevel, MethodInfo, StreamType
from connectrpc.protocol import ProtocolType
from google.rpc.error_details_pb2 import ErrorInfo
from pyqwest import Client, HTTPTransport, HTTPVersion

from tests.rpc.protocols.faces import KEY, SERVICE, Service, pb

OWN: Final = {"authorization": KEY}


def method(name: str, kind: StreamType = StreamType.UNARY) -> MethodInfo[Any, Any]:
    level = IdempotencyLevel.NO_SIDE_EFFECTS if name == "GetText" else IdempotencyLevel.UNKNOWN
    return MethodInfo(
        name=name,
        service_name=SERVICE,
        input=pb.TextRequest,
        output=pb.TextResponse,
        idempotency_level=level,
        stream_type=kind,
    )


LIST = method("ListTexts", StreamType.SERVER_STREAM)
JOIN = method("JoinTexts", StreamType.CLIENT_STREAM)
ECHO = method("EchoTexts", StreamType.BIDI_STREAM)


@pytest.fixture(
    params=[
        (protocol, codec, version)
        for version in (HTTPVersion.HTTP1, HTTPVersion.HTTP2)
        for protocol, codec in (
            (ProtocolType.CONNECT, google_protobuf_json_codec),
            (ProtocolType.CONNECT, google_protobuf_binary_codec),
            (ProtocolType.GRPC_WEB, google_protobuf_binary_codec),
        )
    ],
    ids=lambda param: f"{param[0].name.lower()}-{param[1]().name()}-{param[2]!s}",
)
async def client(address: str, request: pytest.FixtureRequest) -> AsyncIterator[ConnectClient]:
    protocol, codec, version = request.param
    async with HTTPTransport(http_version=version, enable_otel=False) as transport:
        yield ConnectClient(
            f"http://{address}", protocol=protocol, codec=codec(), http_client=Client(transport), timeout_ms=5_000
        )


async def test_a_unary_call(client: ConnectClient) -> None:
    request = pb.TextRequest(text="ü", number=2**62)
    response = await client.execute_unary(request=request, method=method("SendText"), headers=OWN)
    assert response == pb.TextResponse(text="ü", number=2**62)


async def test_a_large_response_is_compressed(client: ConnectClient) -> None:
    request = pb.TextRequest(text="ab", act="large")
    response = await client.execute_unary(request=request, method=method("SendText"), headers=OWN)
    assert response.text == "ab" * 20_000


async def test_a_call_with_get(client: ConnectClient) -> None:
    request = pb.TextRequest(text="a b+ü")
    response = await client.execute_unary(request=request, method=method("GetText"), headers=OWN, use_get=True)
    assert response.text == "a b+ü"


async def test_an_error_with_its_details(client: ConnectClient) -> None:
    with pytest.raises(ConnectError) as caught:
        await client.execute_unary(request=pb.TextRequest(act="refuse"), method=method("SendText"), headers=OWN)
    assert caught.value.code == Code.NOT_FOUND
    assert caught.value.message == "The task does not exist. Check the task_id."
    [detail] = caught.value.details
    assert detail.type_name == "google.rpc.ErrorInfo"
    assert ErrorInfo.FromString(detail.message_bytes).reason == "TASK_NOT_FOUND"


async def test_a_missing_credential_a_deadline_and_an_unknown_method(client: ConnectClient) -> None:
    async def code(name: str, headers: dict[str, str], milliseconds: int = 5_000) -> Code:
        with pytest.raises(ConnectError) as caught:
            await client.execute_unary(
                request=pb.TextRequest(act="wait"), method=method(name), headers=headers, timeout_ms=milliseconds
            )
        return caught.value.code

    assert await code("SendText", {}) == Code.UNAUTHENTICATED
    assert await code("SendText", OWN, 50) == Code.DEADLINE_EXCEEDED
    assert await code("NoSuchMethod", OWN) == Code.UNIMPLEMENTED


async def test_a_stream_of_responses(client: ConnectClient) -> None:
    responses = client.execute_server_stream(request=pb.TextRequest(text="a"), method=LIST, headers=OWN)
    assert [response.number async for response in responses] == [0, 1, 2]


async def test_a_stream_of_responses_that_fails(client: ConnectClient) -> None:
    found = []
    with pytest.raises(ConnectError) as caught:
        async for response in client.execute_server_stream(
            request=pb.TextRequest(act="refuse"), method=LIST, headers=OWN
        ):
            found.append(response.number)  # noqa: PERF401  # the stream fails
    assert (found, caught.value.code) == ([0, 1, 2], Code.NOT_FOUND)
    assert len(caught.value.details) == 1


async def _texts() -> AsyncIterator[Any]:
    for text in ("a", "b", "c"):
        yield pb.TextRequest(text=text)


async def test_a_stream_of_requests(client: ConnectClient) -> None:
    assert (await client.execute_client_stream(request=_texts(), method=JOIN, headers=OWN)).text == "a,b,c"


async def test_a_stream_in_both_directions_alternates(
    client: ConnectClient, request: pytest.FixtureRequest, service: Service
) -> None:
    """The client sends a message when the response to the one before has arrived."""
    if "HTTP/2" not in request.node.name:
        pytest.skip("HTTP/1.1 cannot send while it receives")
    answered: list[str] = []

    async def one_by_one() -> AsyncIterator[Any]:
        for number in range(3):
            assert len(answered) == number
            yield pb.TextRequest(text=str(number))
            while len(answered) == number:
                await asyncio.sleep(0.001)

    async for response in client.execute_bidi_stream(request=one_by_one(), method=ECHO, headers=OWN):
        answered.append(response.text)  # noqa: PERF401  # the requests read it
    assert answered == ["0", "1", "2"]
