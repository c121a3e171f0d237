"""Pages beside the API, over HTTP/1.1."""

import gzip
import json
from collections.abc import AsyncIterator

import grpc
import pytest

from accord_rpc.call import Context
from accord_rpc.protocols.dispatch import Dispatcher
from accord_rpc.protocols.pages import GuardedPage, JsonPage, Pages, StaticPage
from accord_rpc.server.exchange import Exchange
from tests.rpc.server.serving import Client, Response, serving

TEXT = b"a long text, again and again" * 100


async def status(exchange: Exchange) -> tuple[int, object]:
    return (503, {"status": "down"}) if b"down" in exchange.target else (200, {"status": "up"})


async def admit(request: object, context: Context) -> bytes:
    """Who sends the right header, and a message."""
    if ("authorization", "Bearer right") not in list(context.invocation_metadata() or ()):
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, "Sign in.")
    assert await context.read() == b""
    return b""


PAGES = Pages(
    {
        "/text": StaticPage(lambda: TEXT, "text/plain", ((b"content-security-policy", b"default-src 'none'"),)),
        "/status": JsonPage(status),
        "/keys": JsonPage(status, max_age=60),
        "/guarded": GuardedPage(StaticPage(lambda: TEXT, "text/plain"), admit),
    }
)


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with serving(Dispatcher([PAGES])) as site, site.client() as client:
        yield client


async def request(client: Client, path: str, *headers: str, method: str = "GET") -> Response:
    lines = "\r\n".join((f"{method} {path} HTTP/1.1", "Host: localhost", *headers))
    return await client.request(f"{lines}\r\n\r\n".encode(), head=method == "HEAD")


async def test_page_is_compressed_for_clients_that_accept_it(client: Client) -> None:
    plain = await request(client, "/text?any=query")
    packed = await request(client, "/text", "Accept-Encoding: br, gzip")
    assert plain.body == gzip.decompress(packed.body) == TEXT
    assert plain.header("content-encoding") is None
    assert packed.header("content-encoding") == "gzip"
    assert plain.header("vary") == packed.header("vary") == "accept-encoding"


@pytest.mark.parametrize("refused", ["gzip;q=0", "br", "gzip; q=0.0, *", "identity"])
async def test_page_is_not_compressed_for_others(client: Client, refused: str) -> None:
    assert (await request(client, "/text", f"Accept-Encoding: {refused}")).body == TEXT


async def test_page_that_the_client_has_is_not_sent_again(client: Client) -> None:
    first = await request(client, "/text")
    again = await request(client, "/text", f'If-None-Match: "other", {first.header("etag")}')
    changed = await request(client, "/text", 'If-None-Match: "other"')
    assert (again.status, again.body, again.header("etag")) == (304, b"", first.header("etag"))
    assert (changed.status, changed.body) == (200, TEXT)


async def test_head_has_the_headers_of_get(client: Client) -> None:
    head, get = await request(client, "/text", method="HEAD"), await request(client, "/text")
    without_date = [[pair for pair in each.headers if pair[0] != "date"] for each in (head, get)]
    assert without_date[0] == without_date[1]
    assert head.status == 200


async def test_other_http_methods_are_refused(client: Client) -> None:
    refused = await request(client, "/text", "Content-Length: 0", method="POST")
    assert (refused.status, refused.header("allow")) == (405, "GET, HEAD")


async def test_every_page_has_security_headers(client: Client) -> None:
    for path in ("/text", "/status", "/guarded"):
        response = await request(client, path, "Authorization: Bearer right")
        assert response.header("x-content-type-options") == "nosniff"
        assert response.header("referrer-policy") == "no-referrer"
    assert (await request(client, "/text")).header("content-security-policy") == "default-src 'none'"


async def test_value_that_changes_is_not_stored(client: Client) -> None:
    up, down = await request(client, "/status"), await request(client, "/status?down")
    assert (up.status, up.json(), up.header("cache-control")) == (200, {"status": "up"}, "no-store")
    assert (down.status, down.json()) == (503, {"status": "down"})


async def test_value_with_an_age_is_stored_unless_it_is_an_error(client: Client) -> None:
    assert (await request(client, "/keys")).header("cache-control") == "public, max-age=60"
    assert (await request(client, "/keys?down")).header("cache-control") == "no-store"


async def test_guarded_page_is_for_admitted_callers_only(client: Client) -> None:
    refused = await request(client, "/guarded")
    admitted = await request(client, "/guarded", "Authorization: Bearer right")
    assert (refused.status, refused.header("www-authenticate")) == (401, "Bearer")
    assert json.loads(refused.body)["message"] == "Sign in."
    assert (admitted.status, admitted.body) == (200, TEXT)


async def test_other_paths_belong_to_other_protocols(client: Client) -> None:
    assert (await request(client, "/texts")).status == 404
    assert (await request(client, "/text/")).status == 404
