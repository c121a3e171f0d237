"""Codes of authenticator apps (RFC 6238): valid in their step and its neighbours."""

from base64 import b32decode
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accord_auth import totp

SECRET = b"12345678901234567890"
STEP = timedelta(seconds=30)
NOW = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)


# RFC 6238, appendix B, for SHA-1. Six digits are the last six of eight.
@pytest.mark.parametrize(
    ("seconds", "code"),
    [
        (59, "287082"),
        (1111111109, "081804"),
        (1111111111, "050471"),
        (1234567890, "005924"),
        (2000000000, "279037"),
        (20000000000, "353130"),
    ],
)
def test_codes_are_those_of_rfc_6238(seconds: int, code: str) -> None:
    now = datetime.fromtimestamp(seconds, UTC)
    assert totp.code_at(SECRET, totp.step_at(now)) == code
    assert totp.step_of(code, SECRET, now) == seconds // 30


@pytest.mark.parametrize("off", [-1, 0, 1])
def test_code_of_the_step_and_its_neighbours_is_accepted(off: int) -> None:
    step = totp.step_at(NOW) + off
    assert totp.step_of(totp.code_at(SECRET, step), SECRET, NOW) == step


@pytest.mark.parametrize("off", [-1000, -3, -2, 2, 3, 1000])
def test_code_of_any_other_step_is_refused(off: int) -> None:
    assert totp.step_of(totp.code_at(SECRET, totp.step_at(NOW) + off), SECRET, NOW) is None


@given(st.datetimes(datetime(2000, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001 — bounds are naive
def test_code_is_valid_for_ninety_seconds_at_most(shown: datetime) -> None:
    code, step = totp.code_at(SECRET, totp.step_at(shown)), totp.step_at(shown)
    assert totp.step_of(code, SECRET, shown + STEP) == step
    assert totp.step_of(code, SECRET, shown - STEP) == step
    assert totp.step_of(code, SECRET, shown + 3 * STEP) != step
    assert totp.step_of(code, SECRET, shown - 3 * STEP) != step


@pytest.mark.parametrize("code", ["", "0", "00000", "0000000", "abcdef", "²³¹²³¹", "１２３４５６", "-12345", "\0" * 6])
def test_malformed_code_is_refused(code: str) -> None:
    assert totp.step_of(code, SECRET, NOW) is None


def test_code_of_another_secret_is_refused() -> None:
    assert totp.step_of(totp.code_at(SECRET[::-1], totp.step_at(NOW)), SECRET, NOW) is None


def test_secrets_are_unique_and_have_160_bits() -> None:
    made = {totp.new_secret() for _ in range(1000)}
    assert len(made) == 1000
    assert {len(secret) for secret in made} == {20}


@pytest.mark.parametrize("email", ["ada@example.com", "a:b/c?d=e&f#g%h@example.com", "ådå@example.com"])
def test_uri_has_all_parameters(email: str) -> None:
    uri = urlsplit(totp.otpauth_uri(SECRET, email))
    assert (uri.scheme, uri.netloc, unquote(uri.path)) == ("otpauth", "totp", f"/Accord:{email}")
    assert {name: value for name, [value] in parse_qs(uri.query).items()} == {
        "secret": totp.secret_text(SECRET),
        "issuer": "Accord",
        "algorithm": "SHA1",
        "digits": "6",
        "period": "30",
    }
    assert b32decode(totp.secret_text(SECRET)) == SECRET
