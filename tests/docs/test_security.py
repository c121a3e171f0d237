"""The rules, tests, rate limits and lifetimes of docs/security.md match the code."""

import ast
import gzip
import inspect
import re
from collections.abc import Iterator
from datetime import timedelta
from functools import cache
from pathlib import Path

import grpc
import pytest

from accord.errors.v1.errors_pb2 import Reason
from accord.policy.v1.policy_pb2 import RateLimit, RateLimitKey
from accord_api import account_tokens
from accord_api.handlers import devices, invitations
from accord_auth import services, totp
from accord_auth.passwords import Passwords
from accord_auth.providers import providers
from accord_auth.sessions import IMPERSONATED_FOR
from accord_gateway.settings import Settings
from accord_rpc.caller import FRESH_FOR
from accord_rpc.contract import contract_services
from accord_rpc.fields import fields_of
from accord_rpc.policy import read_methods
from tests.api.test_hostile_provider import MUTATIONS

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/security.md").read_text()
METHODS = read_methods(contract_services())[0]

# OWASP ASVS 5.0, sections 3.3 to 3.5, 4.1 and 4.2, chapters 6, 7, 9 and 10: for each section, its last rule and its rules of level 3, which do not apply.
ASVS: dict[str, tuple[int, set[int]]] = {
    "3.3": (5, {5}),
    "3.4": (8, {7, 8}),
    "3.5": (8, {6, 7, 8}),
    "4.1": (5, {4, 5}),
    "4.2": (5, {2, 3, 4, 5}),
    "6.1": (3, set()),
    "6.2": (12, set()),
    "6.3": (8, {5, 6, 7, 8}),
    "6.4": (6, {5, 6}),
    "6.5": (8, {6, 7, 8}),
    "6.6": (4, {4}),
    "6.7": (2, {1, 2}),
    "6.8": (4, set()),
    "7.1": (3, set()),
    "7.2": (4, set()),
    "7.3": (2, set()),
    "7.4": (5, set()),
    "7.5": (3, {3}),
    "7.6": (2, set()),
    "9.1": (3, set()),
    "9.2": (4, set()),
    "10.1": (2, set()),
    "10.2": (3, {3}),
    "10.3": (5, {5}),
    "10.4": (16, {12, 13, 14, 15, 16}),
    "10.5": (5, set()),
    "10.6": (2, set()),
    "10.7": (3, set()),
}
KEYS = {
    RateLimitKey.RATE_LIMIT_KEY_CALLER: "caller",
    RateLimitKey.RATE_LIMIT_KEY_PEER: "address",
    RateLimitKey.RATE_LIMIT_KEY_ACCOUNT: "account",
    RateLimitKey.RATE_LIMIT_KEY_ACCOUNT_AND_PEER: "account and address",
    RateLimitKey.RATE_LIMIT_KEY_ORGANIZATION: "organization",
}
WINDOWS = {60: "minute", 600: "10 minutes", 3600: "hour", 86400: "day"}
LIFETIMES = {
    "session, absolute": Settings.model_fields["session_lifetime"].default,
    "session, idle": Settings.model_fields["session_idle_lifetime"].default,
    "recent sign-in": FRESH_FOR,
    "address verification token": account_tokens.VERIFY_EMAIL.lifetime,
    "password reset token": account_tokens.RESET_PASSWORD.lifetime,
    "sign-in before its second step": account_tokens.SECOND_STEP.lifetime,
    "provider sign-in until completion": providers.SIGN_IN_LIFETIME,
    "device codes": devices._LIFETIME,
    "service token": services.LIFETIME,
    "TOTP code": timedelta(seconds=totp._STEP_SECONDS) * (2 * totp._STEPS_OFF + 1),
    "invitation": invitations.LIFETIME,
    "impersonation session": IMPERSONATED_FOR,
}

Row = tuple[str, ...]


def rules() -> list[tuple[str, str]]:
    """Each rule of the page with its text."""
    return re.findall(r"^- \*\*(\d[^*]*)\*\* (.*(?:\n  .*)*)", PAGE, flags=re.MULTILINE)


def named_tests(text: str) -> list[Row]:
    """File, function and case. The case is empty if the text names the whole function."""
    return re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)(?:\[([^\]`]+)\])?`", text)


def table(first_heading: str) -> list[Row]:
    """The rows of the table whose first column has this heading."""
    match = re.search(rf"^\| {first_heading} \|.*\n\|[-|]+\n((?:\|.*\n)+)", PAGE, flags=re.MULTILINE)
    assert match, f"there is no table of {first_heading}"
    return [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in match[1].splitlines()]


def test_every_rule_of_asvs_is_listed_once() -> None:
    required = [
        f"{section}.{number}"
        for section, (last, level_3) in ASVS.items()
        for number in range(1, last + 1)
        if number not in level_3
    ]
    in_chapters = [rule for rule, _ in rules() if re.fullmatch(r"(3\.[345]|4\.[12]|(6|7|9|10)\.\d+)\.\d+", rule)]
    assert in_chapters == required
    assert len(required) == 108


@pytest.mark.parametrize(("rule", "text"), rules(), ids=[rule for rule, _ in rules()])
def test_rule_names_tests_or_a_reason(rule: str, text: str) -> None:
    requirement, _, how = text.replace("\n ", "").removeprefix("*").partition("* ")
    assert requirement.endswith(".")
    reason = re.match(r"(?:Not applicable|Not met): (\S.{9,})", how)
    assert reason or not re.search(r"not (applicable|met)\b", how, flags=re.IGNORECASE)
    assert reason or named_tests(how)


def test_named_tests_exist() -> None:
    named = named_tests(PAGE)
    assert len(named) > 150
    assert len(named) == PAGE.count("::")
    assert [(file, name) for file, name, _ in named if name not in functions(file)] == []


def test_named_cases_exist() -> None:
    cases = [(name, case) for _, name, case in named_tests(PAGE) if case]
    assert {name for name, _ in cases} == {"test_mutation_cannot_sign_in"}
    assert {case for _, case in cases} <= MUTATIONS.keys()


@cache
def functions(path: str) -> set[str]:
    tree = ast.parse((ROOT / path).read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def limits_of_the_contract() -> Iterator[Row]:
    for method in METHODS:
        limits = [in_words(limit) for limit in method.policy.rate_limits if limit.durable]
        if limits:
            yield f"`{method.name}`", "; ".join(limits)


def in_words(limit: RateLimit) -> str:
    counted = "failures" if limit.failures_only else "calls"
    return f"{KEYS[limit.key]}: {limit.count} {counted} per {WINDOWS[limit.window.seconds]}"


def test_rate_limits_equal_those_of_the_contract() -> None:
    limits = list(limits_of_the_contract())
    assert len(limits) > 15
    assert table("Method") == limits


def test_sign_in_methods_equal_those_of_the_contract() -> None:
    returning_sessions = {
        method.name for method in METHODS if "session_token" in {field.name for field in fields_of(method.response)}
    }
    section = PAGE.partition("\n## Sign-in methods\n")[2]
    shown = re.findall(r"^\| `(\w+)` \|(?:[^|]+\|){3}$", section, flags=re.MULTILINE)
    assert len(shown) == len(set(shown))
    assert set(shown) == returning_sessions


def test_lifetimes_equal_those_of_the_code() -> None:
    rows = lifetimes()
    assert {name: time_of(duration) for name, duration, _ in rows} == LIFETIMES
    assert len([setting for *_, setting in rows if setting]) == 2
    for name, _, setting in rows:
        if setting:
            assert Settings.model_fields[setting.lower()].default == LIFETIMES[name]


def lifetimes() -> list[Row]:
    """Name, duration, and the setting that changes it; empty without one."""
    rows = [(name, re.fullmatch(r"(\d+ \w+)(?: \(`(\w+)`\))?", value)) for name, value in table("Lifetime")]
    return [(name, match[1], match[2] or "") for name, match in rows if match]


def time_of(text: str) -> timedelta:
    number, unit = text.split()
    return timedelta(**{unit if unit.endswith("s") else f"{unit}s": int(number)})


def test_durations_in_sentences_equal_those_of_the_table() -> None:
    """Every number of days on the page is in the table of lifetimes."""
    days = {duration for _, duration, _ in lifetimes() if duration.endswith("days")}
    assert set(re.findall(r"\b\d+ days\b", PAGE)) == days


def test_forbidden_words_of_passwords_equal_those_of_the_code() -> None:
    words = inspect.signature(Passwords).parameters["context_words"].default
    assert re.findall(r"^- the name of the product: `(\w+)`\.$", PAGE, flags=re.MULTILINE) == sorted(words)
    packed = ROOT / "packages/auth/accord_auth/common_passwords.txt.gz"
    assert f" {len(gzip.decompress(packed.read_bytes()).splitlines()):,} common passwords " in PAGE


def test_names_in_capitals_are_settings_codes_or_reasons() -> None:
    settings = {name.upper() for name in Settings.model_fields}
    codes = {code.name for code in grpc.StatusCode}
    reasons = {value.name.removeprefix("REASON_") for value in Reason.DESCRIPTOR.values}
    named = set(re.findall(r"`([A-Z]+_[A-Z_]+)(?:=\w+)?`", PAGE))
    assert named <= settings | codes | reasons
    assert len(named & settings) > 8
