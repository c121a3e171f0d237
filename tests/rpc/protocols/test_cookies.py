"""The session cookie, and how a browser's headers tell its own site from others."""

from datetime import UTC, datetime

import pytest

from accord_rpc.protocols.cookies import clear_cookie, is_from_another_site, session_tokens, set_cookie

APP = "https://app.example.com"
EVIL = "https://evil.example.com"


def test_cookie_is_for_this_host_alone_and_hidden_from_scripts() -> None:
    name, value = set_cookie("token", datetime(2026, 12, 30, 12, tzinfo=UTC))
    assert name == b"set-cookie"
    assert value == (
        b"__Host-session=token; Path=/; Secure; HttpOnly; SameSite=Lax; Expires=Wed, 30 Dec 2026 12:00:00 GMT"
    )
    assert clear_cookie()[1] == b"__Host-session=; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0"


@pytest.mark.parametrize(
    ("cookie", "tokens"),
    [
        ("", []),
        ("a=b", []),
        ("__Host-session=x", ["x"]),
        ("a=b;  __Host-session=x; c=d", ["x"]),
        ("__host-session=x; session=y; x__Host-session=z", []),
        ("__Host-session=", []),
        ("__Host-session=x; __Host-session=y", ["x", "y"]),
    ],
)
def test_session_tokens_of_a_header(cookie: str, tokens: list[str]) -> None:
    assert session_tokens(cookie) == tokens


@pytest.mark.parametrize(
    ("site", "origin", "from_another"),
    [
        (None, None, None),
        ("same-origin", None, False),
        ("none", None, False),
        ("same-origin", EVIL, False),
        ("same-site", None, True),
        ("cross-site", None, True),
        ("same-site", APP, False),
        ("cross-site", APP, False),
        (None, APP, False),
        (None, EVIL, True),
        ("cross-site", EVIL, True),
        (None, "null", True),
        (None, f"{APP}:8443", True),
        ("", None, True),
    ],
)
def test_site_of_a_request(site: str | None, origin: str | None, from_another: bool | None) -> None:
    sent = [(name, value) for name, value in (("sec-fetch-site", site), ("origin", origin)) if value is not None]
    assert is_from_another_site(sent, [APP]) is from_another


def test_repeated_headers_are_not_believed() -> None:
    assert is_from_another_site([("origin", APP), ("origin", EVIL)], [APP]) is True
    assert is_from_another_site([("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")], [APP]) is True
