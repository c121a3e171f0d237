"""Connect over real sockets, with a client that sends exactly what a test writes."""

import asyncio
import gzip
import json
from base64 import b64encode, urlsafe_b64encode
from typing import Any
from urllib.parse import quote

import httpx2
import pytest
from google.rpc.error_details_pb2 import ErrorInfo

from accord_rpc.protocols.framing import INCOMPLETE
from tests.api.web import read_head, sent
from tests.rpc.protocols.conftest import Faces
from tests.rpc.protocols.faces import KEY, SERVICE, Service, pb

JSON, PROTO = "application/json", "application/proto"
STREAM_JSON, STREAM_PROTO = "application/connect+json", "application/connect+proto"


def frame(data: bytes | str, flags: int = 0) -> bytes:
    data = data.encode() if isinstance(data, str) else data
    return bytes([flags]) + len(data).to_bytes(4, "big") + data


def frames(body: bytes) -> list[tuple[int, bytes]]:
    found = []
    while body:
        end = 5 + int.from_bytes(body[1:5], "big")
        assert len(body) >= end
        found.append((body[0], body[5:end]))
        body = body[end:]
    return found


def messages(response: httpx2.Response) -> tuple[list[Any], Any]:
    """The messages of a stream in JSON, and its end."""
    assert response.status_code == 200
    *others, (flags, end) = frames(response.content)
    assert flags == 2
    assert all(flags == 0 for flags, _ in others)
    return [json.loads(data) for _, data in others], json.loads(end)


def error(response: httpx2.Response) -> tuple[int, str, str]:
    """The HTTP status, the code, and the reason."""
    body = response.json()
    assert response.headers["content-type"] == JSON
    details = [detail for detail in body.get("details", ()) if detail["type"] == "google.rpc.ErrorInfo"]
    return response.status_code, body["code"], details[0]["debug"]["reason"] if details else ""


def violations(body: Any) -> dict[str, str]:
    [detail] = [detail for detail in body["details"] if detail["type"] == "google.rpc.BadRequest"]
    return {each["field"]: each["description"] for each in detail["debug"]["fieldViolations"]}


# --- unary ------------------------------------------------------------------------------------------------------------
async def test_a_call_in_json(faces: Faces) -> None:
    response = await faces.post("SendText", JSON, '{"text": "a", "number": "9007199254740993"}')
    assert response.status_code == 200
    assert response.json() == {"text": "a", "number": "9007199254740993"}
    headers = response.headers
    assert headers["content-type"] == JSON
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"
    assert len(headers["x-request-id"]) == 16


async def test_a_call_in_binary(faces: Faces) -> None:
    response = await faces.post("SendText", PROTO, pb.TextRequest(text="a", number=7).SerializeToString())
    assert response.headers["content-type"] == PROTO
    assert pb.TextResponse.FromString(response.content) == pb.TextResponse(text="a", number=7)


async def test_the_content_type_may_name_utf8_and_no_other_charset(faces: Faces) -> None:
    assert (await faces.post("SendText", "Application/JSON; charset=UTF-8", "{}")).status_code == 200
    assert (await faces.post("SendText", "application/json; charset=latin1", "{}")).status_code == 415


async def test_an_error_has_its_details_as_connect_clients_read_them(faces: Faces) -> None:
    response = await faces.post(
        "SendText", PROTO, pb.TextRequest(act="refuse").SerializeToString(), x_request_id="mine"
    )
    assert error(response) == (404, "not_found", "TASK_NOT_FOUND")
    assert response.headers["x-request-id"] == "mine"
    [detail] = response.json()["details"]
    info = ErrorInfo(reason="TASK_NOT_FOUND", domain="accord", metadata={"task_id": "7"})
    assert detail["value"] == b64encode(info.SerializeToString()).rstrip(b"=").decode()


async def test_a_fault_is_internal_and_tells_nothing(faces: Faces) -> None:
    response = await faces.post("SendText", JSON, '{"act": "fail"}')
    assert error(response) == (500, "internal", "INTERNAL")
    assert "secret" not in response.text


async def test_a_response_that_json_cannot_express_is_an_error_of_the_call(
    faces: Faces, capsys: pytest.CaptureFixture[str]
) -> None:
    response = await faces.post("SendText", JSON, '{"act": "overflow"}')
    assert error(response) == (500, "internal", "INTERNAL")
    line = next(line for line in capsys.readouterr().out.splitlines() if " call " in line)
    assert "code=INTERNAL" in line
    assert response.headers["x-request-id"] in line


async def test_a_limited_caller_learns_when_to_retry(faces: Faces) -> None:
    response = await faces.post("SendText", JSON, '{"act": "limit"}')
    assert error(response) == (429, "resource_exhausted", "RATE_LIMITED")
    assert response.headers["retry-after"] == "2"


async def test_all_problems_of_a_message_are_reported_at_once(faces: Faces) -> None:
    response = await faces.post("SendText", JSON, '{"text": 1, "number": "x", "nothing": 1}', connect_timeout_ms="soon")
    assert response.status_code == 400
    assert violations(response.json()).keys() == {"connect-timeout-ms", "text", "number", "nothing"}


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"text": "a", "text": "b"}', b'{"text": "\\ud800"}'])
async def test_a_body_that_is_not_a_message_is_refused(faces: Faces, body: bytes) -> None:
    assert error(await faces.post("SendText", JSON, body)) == (400, "invalid_argument", "INVALID_MESSAGE")


async def test_access_is_decided_before_the_body_is_read(service: Service, address: str) -> None:
    headers = {"content-type": JSON, "content-length": "100"}  # and no body
    async with asyncio.timeout(5), sent(address, "POST", f"/{SERVICE}/SendText", headers=headers) as reader:
        status, fields = await read_head(reader)
    assert status == 401
    assert ("www-authenticate", "Bearer") in fields
    assert service.entered == 0


async def test_a_call_without_the_credential_is_refused_whatever_its_body_is(faces: Faces) -> None:
    response = await faces.post("SendText", JSON, "no json", authorization="")
    assert error(response) == (401, "unauthenticated", "CREDENTIAL_MISSING")


async def test_a_deadline_ends_the_call(faces: Faces) -> None:
    response = await faces.post("SendText", JSON, '{"act": "wait"}', connect_timeout_ms="50")
    assert error(response) == (504, "deadline_exceeded", "DEADLINE_EXCEEDED")


@pytest.mark.parametrize("milliseconds", ["", "-1", "1.5", "1s", "12345678901", "0x1", "１"])
async def test_a_malformed_deadline_is_refused(faces: Faces, milliseconds: str) -> None:
    headers = [("content-type", JSON), ("authorization", KEY), ("connect-timeout-ms", milliseconds.encode())]
    response = await faces.http.post(f"/{SERVICE}/SendText", content="{}", headers=headers)  # type: ignore[arg-type]
    assert error(response) == (400, "invalid_argument", "INVALID_MESSAGE")
    assert violations(response.json()).keys() == {"connect-timeout-ms"}


async def test_only_version_1_of_the_protocol_is_spoken(faces: Faces) -> None:
    assert (await faces.post("SendText", JSON, "{}", connect_protocol_version="1")).status_code == 200
    response = await faces.post("SendText", JSON, "{}", connect_protocol_version="2")
    assert violations(response.json()) == {"connect-protocol-version": "must be 1"}


async def test_a_client_that_leaves_cancels_the_call(faces: Faces) -> None:
    with pytest.raises(httpx2.ReadTimeout):
        await faces.http.post(
            f"/{SERVICE}/SendText",
            content='{"act": "wait"}',
            headers={"content-type": JSON, "authorization": KEY},
            timeout=httpx2.Timeout(5, read=0.1),
        )
    await faces.http.aclose()
    await asyncio.wait_for(faces.service.cancelled.wait(), 5)


# --- headers ----------------------------------------------------------------------------------------------------------
async def test_headers_become_metadata_except_those_of_http_and_cookies(faces: Faces) -> None:
    async def seen(name: str, **headers: str) -> str:
        response = await faces.post("SendText", JSON, json.dumps({"act": f"metadata {name}"}), **headers)
        return str(response.json()["text"])

    assert await seen("traceparent", traceparent="00-1-2-01") == "['00-1-2-01']"
    assert await seen("x-data-bin", x_data_bin="/wA") == r"[b'\xff\x00']"
    for name in ("cookie", "content-type", "content-length", "host", "connection", "te", "accept-encoding"):
        assert await seen(name, cookie="a=b", accept_encoding="gzip", te="trailers") == "[]", name


async def test_a_binary_header_must_be_base64(faces: Faces) -> None:
    response = await faces.post("SendText", JSON, "{}", x_data_bin="?")
    assert violations(response.json()) == {"x-data-bin": "must be base64"}


async def test_trailers_are_headers_with_a_prefix(faces: Faces) -> None:
    response = await faces.post("SendText", JSON, '{"act": "trailers"}')
    assert response.headers["trailer-x-note"] == "a"
    assert response.headers["trailer-x-note-bin"] == "/wA"
    assert "trailer-x-request-id" not in response.headers


# --- compression ------------------------------------------------------------------------------------------------------
async def test_a_compressed_body_is_read(faces: Faces) -> None:
    body = gzip.compress(b'{"text": "a"}')
    assert (await faces.post("SendText", JSON, body, content_encoding="gzip")).json()["text"] == "a"


async def test_a_large_response_is_compressed_for_a_client_that_accepts_it(faces: Faces) -> None:
    body = '{"act": "large", "text": "ab"}'
    response = await faces.post("SendText", JSON, body, accept_encoding="br, gzip;q=0.5")
    assert response.headers["content-encoding"] == "gzip"
    assert response.json()["text"] == "ab" * 20_000
    for refuses in ("", "br", "gzip;q=0"):
        response = await faces.post("SendText", JSON, body, accept_encoding=refuses)
        assert "content-encoding" not in response.headers
    assert "content-encoding" not in (await faces.post("SendText", JSON, "{}", accept_encoding="gzip")).headers


async def test_a_response_with_a_secret_is_not_compressed(faces: Faces) -> None:
    response = await faces.post("GetSecret", JSON, '{"act": "large", "text": "ab"}', accept_encoding="gzip")
    assert len(response.json()["token"]) == 40_000
    assert "content-encoding" not in response.headers


async def test_an_unknown_compression_is_refused_and_the_known_one_named(faces: Faces) -> None:
    response = await faces.post("SendText", JSON, "{}", content_encoding="br")
    assert error(response) == (501, "unimplemented", "")
    assert response.headers["accept-encoding"] == "gzip"


async def test_a_body_compressed_twice_is_refused(faces: Faces) -> None:
    assert error(await faces.post("SendText", JSON, "{}", content_encoding="gzip, gzip"))[0] == 501


async def test_an_unknown_compression_of_a_stream_is_refused_and_the_known_one_named(faces: Faces) -> None:
    response = await faces.post("ListTexts", STREAM_JSON, frame("{}"), connect_content_encoding="br")
    assert messages(response)[1]["error"]["code"] == "unimplemented"
    assert response.headers["connect-accept-encoding"] == "gzip"


@pytest.mark.parametrize("body", [b"no gzip", gzip.compress(b"{}", mtime=0)[:-4]])
async def test_a_body_that_is_not_compressed_as_its_headers_say_is_refused(faces: Faces, body: bytes) -> None:
    response = await faces.post("SendText", JSON, body, content_encoding="gzip")
    assert error(response) == (400, "invalid_argument", "INVALID_MESSAGE")


async def test_a_message_of_more_than_4_mib_is_refused_compressed_or_not(faces: Faces) -> None:
    large = b'{"text": "' + b"a" * (4 * 1024 * 1024) + b'"}'
    response = await faces.post("SendText", JSON, gzip.compress(large, 1), content_encoding="gzip")
    assert error(response) == (429, "resource_exhausted", "")
    response = await faces.post("SendText", JSON, large)
    assert error(response) == (429, "resource_exhausted", "")


async def test_body_counts_with_other_incomplete_messages_until_it_has_arrived(
    service: Service, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(INCOMPLETE, "limit", 100)
    body = b'{"text": "%b"}' % (b"a" * 70)
    reader, writer = await asyncio.open_connection(*address.split(":"))
    head = f"POST /{SERVICE}/SendText HTTP/1.1\r\nhost: a\r\nauthorization: {KEY}\r\ncontent-type: {JSON}\r\n"
    writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body[:60])
    async with asyncio.timeout(5):
        while INCOMPLETE.held != 60:
            await asyncio.sleep(0.001)
        async with httpx2.AsyncClient(base_url=f"http://{address}", trust_env=False) as http:
            own = {"content-type": JSON, "authorization": KEY}
            response = await http.post(f"/{SERVICE}/SendText", content=body, headers=own)
        assert error(response) == (429, "resource_exhausted", "")
        assert service.entered == 0
        writer.write(body[60:])
        assert (await read_head(reader))[0] == 200
    writer.close()
    assert INCOMPLETE.held == 0


# --- what is no call --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("method", "kind", "accepted"),
    [
        ("SendText", "text/plain", "application/json, application/proto"),
        ("SendText", "", "application/json, application/proto"),
        ("SendText", STREAM_JSON, "application/json, application/proto"),
        ("ListTexts", JSON, "application/connect+json, application/connect+proto"),
    ],
)
async def test_another_content_type_is_refused_with_those_accepted(
    faces: Faces, method: str, kind: str, accepted: str
) -> None:
    response = await faces.post(method, kind, "{}")
    assert response.status_code == 415
    assert response.headers["accept-post"] == accepted
    assert response.headers["x-request-id"]


async def test_another_http_method_is_refused_with_those_allowed(faces: Faces) -> None:
    path = f"/{SERVICE}/"
    assert (await faces.http.request("OPTIONS", path + "GetText")).headers["allow"] == "GET, HEAD, OPTIONS, POST"
    for name, method in (("SendText", "GET"), ("SendText", "PUT"), ("GetText", "DELETE"), ("ListTexts", "GET")):
        response = await faces.http.request(method, path + name)
        assert (response.status_code, response.json()["code"]) == (405, "unimplemented")
        assert ("GET" in response.headers["allow"]) == (name == "GetText")


@pytest.mark.parametrize("kind", [PROTO, STREAM_JSON])
async def test_an_unknown_method_is_refused_by_the_pipeline(faces: Faces, kind: str) -> None:
    response = await faces.post("NoSuchMethod", kind, "{}")
    if kind == PROTO:
        assert error(response) == (501, "unimplemented", "METHOD_UNKNOWN")
    else:
        assert messages(response)[1]["error"]["code"] == "unimplemented"


# --- GET --------------------------------------------------------------------------------------------------------------
async def get(faces: Faces, query: str, **headers: str) -> httpx2.Response:
    own = {"authorization": KEY, **headers}
    return await faces.http.get(httpx2.URL(f"http://{faces.address}/{SERVICE}/GetText?{query}"), headers=own)


async def test_a_method_without_side_effects_can_be_called_with_get(faces: Faces) -> None:
    message = '{"text": "a+b ü"}'
    response = await get(faces, f"connect=v1&encoding=json&message={quote(message)}")
    assert response.json()["text"] == "a+b ü"
    assert response.headers["cache-control"] == "no-store"
    encoded = urlsafe_b64encode(message.encode()).decode().rstrip("=")
    assert (await get(faces, f"encoding=json&base64=1&message={encoded}")).json()["text"] == "a+b ü"
    compressed = urlsafe_b64encode(gzip.compress(pb.TextRequest(text="a").SerializeToString())).decode()
    response = await get(faces, f"encoding=proto&base64=1&compression=gzip&message={quote(compressed)}")
    assert pb.TextResponse.FromString(response.content).text == "a"


async def test_head_is_get_without_a_body(faces: Faces) -> None:
    target = f"/{SERVICE}/GetText?encoding=json&message=%7B%7D"
    response = await faces.http.request("HEAD", target, headers={"authorization": KEY})
    assert (response.status_code, response.content) == (200, b"")


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("encoding=json", "message"),
        ("encoding=json&message=%7B%7D&connect=v2", "connect"),
        ("encoding=json&message=%7B%7D&message=%7B%7D", "message"),
        ("encoding=json&message=%7B%7D&token=secret", "query"),
        ("encoding=json&base64=1&message=%21", "message"),
        ("encoding=json&message=%7B", ""),
    ],
)
async def test_malformed_queries_are_refused(faces: Faces, query: str, field: str) -> None:
    response = await get(faces, query)
    assert error(response) == (400, "invalid_argument", "INVALID_MESSAGE")
    assert list(violations(response.json())) == [field]
    assert "secret" not in response.text


async def test_a_get_without_a_known_encoding_is_refused(faces: Faces) -> None:
    assert (await get(faces, "message=%7B%7D")).status_code == 415


# --- streams ----------------------------------------------------------------------------------------------------------
async def test_a_stream_of_responses(faces: Faces) -> None:
    response = await faces.post("ListTexts", STREAM_JSON, frame('{"text": "a"}'))
    found, end = messages(response)
    assert found == [{"text": "a", "number": str(number)} for number in range(3)]
    assert end == {}
    assert response.headers["content-type"] == STREAM_JSON
    assert response.headers["x-request-id"]
    assert response.headers["cache-control"] == "no-store"


async def test_a_stream_of_requests_in_binary(faces: Faces) -> None:
    body = b"".join(frame(pb.TextRequest(text=text).SerializeToString()) for text in "abc")
    (_, message), (flags, end) = frames((await faces.post("JoinTexts", STREAM_PROTO, body)).content)
    assert pb.TextResponse.FromString(message).text == "a,b,c"
    assert (flags, end) == (2, b"{}")


async def test_a_stream_ends_with_its_error_and_trailers(faces: Faces) -> None:
    found, end = messages(await faces.post("ListTexts", STREAM_JSON, frame('{"act": "refuse"}')))
    assert len(found) == 3
    assert end["error"]["code"] == "not_found"
    assert end["error"]["details"][0]["type"] == "google.rpc.ErrorInfo"
    _, end = messages(await faces.post("ListTexts", STREAM_JSON, frame('{"act": "trailers"}')))
    assert end == {"metadata": {"x-note": ["a"], "x-note-bin": ["/wA"]}}


async def test_a_stream_that_is_refused_at_once_has_status_200_too(faces: Faces) -> None:
    found, end = messages(await faces.post("ListTexts", STREAM_JSON, frame("{}"), authorization=""))
    assert (found, end["error"]["code"]) == ([], "unauthenticated")


async def test_streams_are_compressed_both_ways(faces: Faces) -> None:
    body = frame(gzip.compress(b'{"text": "ab", "act": "large"}'), 1) + frame('{"text": "c"}')
    response = await faces.post(
        "JoinTexts", STREAM_JSON, body, connect_content_encoding="gzip", connect_accept_encoding="gzip"
    )
    (flags, message), _ = frames(response.content)
    assert response.headers["connect-content-encoding"] == "gzip"
    assert flags == 1
    assert json.loads(gzip.decompress(message))["text"] == "ab" * 20_000 + ",c"


@pytest.mark.parametrize(
    ("body", "description"),
    [
        (frame("{}")[:-1], "the body ends within a message"),
        (frame("{}", 4), "a message has flags that requests do not have"),
        (frame("{}", 1), "A message is compressed, but the headers name no compression."),
        (b"", "the call carried no message"),
        (frame("{}") + b"\0", "the body ends within a message"),
    ],
)
async def test_a_stream_with_a_malformed_message_is_refused(faces: Faces, body: bytes, description: str) -> None:
    _, end = messages(await faces.post("ListTexts", STREAM_JSON, body))
    assert end["error"]["code"] == "invalid_argument"
    assert violations(end["error"]) == {"": description}


async def test_a_stream_of_responses_to_several_messages_is_refused(faces: Faces) -> None:
    _, end = messages(await faces.post("ListTexts", STREAM_JSON, frame("{}") * 2))
    assert end["error"]["code"] == "unimplemented"
    assert faces.service.entered == 0


async def test_a_message_of_more_than_4_mib_ends_the_stream(faces: Faces) -> None:
    head = b"\0" + (4 * 1024 * 1024 + 1).to_bytes(4, "big")
    _, end = messages(await faces.post("JoinTexts", STREAM_JSON, head))
    assert end["error"]["code"] == "resource_exhausted"


async def test_streams_in_both_directions_require_http2(faces: Faces) -> None:
    response = await faces.post("EchoTexts", STREAM_JSON, frame('{"text": "a"}'))
    if response.http_version == "HTTP/1.1":
        assert response.status_code == 505
    else:
        assert messages(response)[0] == [{"text": "a", "number": "0"}]
