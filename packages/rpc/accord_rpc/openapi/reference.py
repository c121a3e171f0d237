"""The OpenAPI document at `/openapi.json`, and at `/docs` a page that shows it and makes calls (Swagger UI)."""

from collections.abc import Iterator
from functools import partial
from http import HTTPStatus
from importlib.resources import files
from typing import Final

from accord_rpc.protocols.pages import StaticPage, respond
from accord_rpc.server.exchange import Application, Exchange, Headers

_HTML, _SCRIPT, _STYLE = "text/html; charset=utf-8", "text/javascript; charset=utf-8", "text/css; charset=utf-8"
_OWN: Final = (
    ("docs.html", "/docs", _HTML),
    ("docs.js", "/docs/docs.js", _SCRIPT),
    ("docs.css", "/docs/docs.css", _STYLE),
)
_SWAGGER_UI: Final = (
    ("swagger-ui-bundle.js", _SCRIPT),
    ("swagger-ui.css", _STYLE),
    ("favicon-32x32.png", "image/png"),
)
_HEADERS: Final[Headers] = (
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
)


def document_page() -> Application:
    return StaticPage((files("accord") / "openapi.json").read_bytes, "application/json")


def docs_pages(*, session_cookies: bool) -> dict[str, Application]:
    """By path. They contain nothing of the contract: the page loads the document. `session_cookies`: the page may have a session from
    before it was loaded."""
    pages = {"/": _to_docs, "/docs/": _to_docs, **dict(_docs_pages())}
    if session_cookies:
        pages["/docs"] = StaticPage(_docs_with_cookies, _HTML, _HEADERS)
    return pages


def _docs_with_cookies() -> bytes:
    return _own("docs.html").replace(b"<body>", b"<body data-session-cookies>")


def _own(name: str) -> bytes:
    return (files("accord_rpc.openapi") / "static" / name).read_bytes()


async def _to_docs(exchange: Exchange) -> None:
    respond(exchange, HTTPStatus.TEMPORARY_REDIRECT, ((b"location", b"/docs"), (b"cache-control", b"no-store")))


def _docs_pages() -> Iterator[tuple[str, Application]]:
    for name, path, content_type in _OWN:
        yield path, StaticPage(partial(_own, name), content_type, _HEADERS)
    swagger_ui = next((files("swagger_ui_bundle") / "vendor").iterdir())  # its name has the version
    for name, content_type in _SWAGGER_UI:
        yield f"/docs/{name}", StaticPage((swagger_ui / name).read_bytes, content_type, _HEADERS)
