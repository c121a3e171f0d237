"""gRPC-Web over real sockets, in binary and in base64."""

import gzip
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator

import httpx2
import pytest
from google.rpc.status_pb2 import Status

from accord_rpc.protocols.framing import FramingError
from accord_rpc.protocols.grpc_web import Base64Decoder
from tests.rpc.protocols.conftest import Faces
from tests.rpc.protocols.faces import KEY, SERVICE, pb
from tests.rpc.protocols.test_connect import frame, frames

BINARY, TEXT = "application/grpc-web+proto", "application/grpc-web-text"


def request(text: str = "a", act: str = "") -> bytes:
    return frame(pb.TextRequest(text=text, act=act).SerializeToString())


def result(response: httpx2.Response) -> tuple[list[str], dict[str, str]]:
    """The texts, and the trailers: of their own frame, or of the head if there is no message."""
    body = response.content
    if "text" in response.headers["content-type"]:
        body = Base64Decoder().feed(body)
    if not body:
        return [], {name: value for name, value in response.headers.items() if name.startswith("grpc-")}
    *found, (flags, trailers) = frames(body)
    assert flags == 0x80
    lines = trailers.decode().split("\r\n")
    assert lines.pop() == ""
    return [pb.TextResponse.FromString(data).text for _, data in found], dict(line.split(": ") for line in lines)


@pytest.mark.parametrize("kind", ["application/grpc-web", BINARY])
async def test_a_unary_call_in_binary(faces: Faces, kind: str) -> None:
    response = await faces.post("SendText", kind, request())
    texts, trailers = result(response)
    assert (texts, trailers["grpc-status"]) == (["a"], "0")
    assert response.headers["content-type"] == BINARY
    assert response.headers["x-request-id"] == trailers["x-request-id"]
    assert response.headers["cache-control"] == "no-store"


async def test_a_unary_call_in_base64(faces: Faces) -> None:
    response = await faces.post("SendText", TEXT, b64encode(request("abc")))
    texts, trailers = result(response)
    assert (texts, trailers["grpc-status"]) == (["abc"], "0")
    assert response.headers["content-type"] == "application/grpc-web-text+proto"


async def test_a_body_in_base64_arrives_in_parts_with_padding_between(faces: Faces) -> None:
    whole = request("abc")
    encoded = b64encode(whole[:4]) + b64encode(whole[4:])
    assert encoded.index(b"=") < len(encoded) - 4

    async def parts() -> AsyncIterator[bytes]:
        for position in range(0, len(encoded), 3):
            yield encoded[position : position + 3]

    headers = {"content-type": TEXT, "authorization": KEY}
    response = await faces.http.post(f"/{SERVICE}/SendText", content=parts(), headers=headers)
    assert result(response)[0] == ["abc"]


@pytest.mark.parametrize("kind", [BINARY, TEXT])
async def test_a_stream_of_responses(faces: Faces, kind: str) -> None:
    body = request("abc") if kind == BINARY else b64encode(request("abc"))
    texts, trailers = result(await faces.post("ListTexts", kind, body))
    assert (texts, trailers["grpc-status"]) == (["abc"] * 3, "0")


async def test_a_stream_that_fails_has_its_error_in_the_last_frame(faces: Faces) -> None:
    texts, trailers = result(await faces.post("ListTexts", BINARY, request(act="refuse")))
    assert (texts, trailers["grpc-status"]) == (["a"] * 3, "5")
    status = Status.FromString(b64decode(trailers["grpc-status-details-bin"] + "=="))
    assert status.details[0].type_url.endswith("google.rpc.ErrorInfo")


@pytest.mark.parametrize("kind", [BINARY, TEXT])
async def test_a_call_that_fails_without_a_message_has_its_error_in_the_headers(faces: Faces, kind: str) -> None:
    body = request(act="refuse") if kind == BINARY else b64encode(request(act="refuse"))
    response = await faces.post("SendText", kind, body)
    assert (response.status_code, response.content) == (200, b"")
    assert response.headers["grpc-status"] == "5"
    assert response.headers["x-request-id"]
    assert Status.FromString(b64decode(response.headers["grpc-status-details-bin"] + "==")).code == 5


async def test_a_call_without_the_credential_is_refused(faces: Faces) -> None:
    response = await faces.post("SendText", BINARY, b"", authorization="")
    assert response.headers["grpc-status"] == "16"


async def test_a_deadline_ends_the_call(faces: Faces) -> None:
    response = await faces.post("SendText", BINARY, request(act="wait"), grpc_timeout="50m")
    assert response.headers["grpc-status"] == "4"


async def test_malformed_bodies_and_headers_have_the_status_of_grpc(faces: Faces) -> None:
    assert (await faces.post("SendText", TEXT, b"*" * 8)).headers["grpc-status"] == "13"
    assert (await faces.post("SendText", TEXT, b"AAA")).headers["grpc-status"] == "13"
    assert (await faces.post("SendText", BINARY, b"", grpc_timeout="soon")).headers["grpc-status"] == "13"
    assert (await faces.post("SendText", BINARY, b"", grpc_encoding="br")).headers["grpc-status"] == "12"
    assert (await faces.post("ListTexts", BINARY, request() * 2)).headers["grpc-status"] == "12"
    assert (await faces.post("NoSuchMethod", BINARY, request())).headers["grpc-status"] == "12"


@pytest.mark.parametrize("kind", [BINARY, TEXT])
async def test_large_messages_are_compressed_for_clients_that_accept_it(faces: Faces, kind: str) -> None:
    body = request("ab", "large") if kind == BINARY else b64encode(request("ab", "large"))
    response = await faces.post("SendText", kind, body, grpc_accept_encoding="gzip")
    assert response.headers["grpc-encoding"] == "gzip"
    data = response.content if kind == BINARY else Base64Decoder().feed(response.content)
    (flags, message), (_, trailers) = frames(data)
    assert flags == 1
    assert pb.TextResponse.FromString(gzip.decompress(message)).text == "ab" * 20_000
    assert b"grpc-status: 0" in trailers
    assert "grpc-encoding" not in (await faces.post("SendText", kind, body)).headers


async def test_a_response_with_a_secret_is_not_compressed(faces: Faces) -> None:
    response = await faces.post("GetSecret", BINARY, request("ab", "large"), grpc_accept_encoding="gzip")
    assert "grpc-encoding" not in response.headers
    assert frames(response.content)[0][0] == 0


async def test_other_content_types_and_http_methods_are_refused(faces: Faces) -> None:
    response = await faces.post("SendText", "application/grpc-web+thrift", b"")
    assert response.status_code == 415
    assert BINARY in response.headers["accept-post"]
    assert response.headers["x-request-id"]
    response = await faces.http.put(f"/{SERVICE}/SendText", headers={"content-type": BINARY})
    assert (response.status_code, response.headers["allow"]) == (405, "POST")


def test_base64_is_decoded_in_parts_of_any_length() -> None:
    pieces = [b"a", b"bc", b"", b"def", b"ghij", b"k" * 100]
    encoded = b"".join(map(b64encode, pieces))
    for step in range(1, 9):
        decoder = Base64Decoder()
        parts = [decoder.feed(encoded[start : start + step]) for start in range(0, len(encoded), step)]
        decoder.end()
        assert b"".join(parts) == b"".join(pieces)


@pytest.mark.parametrize("encoded", [b"a", b"abc", b"a===", b"ab=c", b"====", b"a b=", "äää".encode()])
def test_what_is_not_base64_is_refused(encoded: bytes) -> None:
    decoder = Base64Decoder()
    with pytest.raises(FramingError):
        decoder.feed(encoded)
        decoder.end()
