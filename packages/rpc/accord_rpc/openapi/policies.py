"""Policies as sentences, and as the extension `x-policy`."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from google.protobuf.descriptor_pb2 import MethodOptions
from google.protobuf.duration_pb2 import Duration

from accord.policy.v1.policy_pb2 import Access, Credential, MethodPolicy, RateLimit, RateLimitKey
from accord_rpc.permissions import PERMISSION_NAMES

CREDENTIALS: Final[Mapping[Credential.ValueType, str]] = {
    Credential.CREDENTIAL_SESSION: "session",
    Credential.CREDENTIAL_API_KEY: "API key",
    Credential.CREDENTIAL_SERVICE_TOKEN: "service token",
    Credential.CREDENTIAL_CLIENT_CERTIFICATE: "certificate",
}
KEYS: Final[Mapping[RateLimitKey.ValueType, str]] = {
    RateLimitKey.RATE_LIMIT_KEY_CALLER: "caller",
    RateLimitKey.RATE_LIMIT_KEY_PEER: "address",
    RateLimitKey.RATE_LIMIT_KEY_ACCOUNT: "account",
    RateLimitKey.RATE_LIMIT_KEY_ACCOUNT_AND_PEER: "account and address",
    RateLimitKey.RATE_LIMIT_KEY_ORGANIZATION: "organization",
}
_ACCESS: Final[Mapping[Access.ValueType, str]] = {
    Access.ACCESS_PUBLIC: "Public: needs no credential.",
    Access.ACCESS_SIGNED_IN: "For callers who are signed in.",
    Access.ACCESS_ADMIN: "For administrators of the installation.",
    Access.ACCESS_SERVICE: "For services that call for themselves.",
}
_IDEMPOTENCY: Final = {MethodOptions.NO_SIDE_EFFECTS: "no_side_effects", MethodOptions.IDEMPOTENT: "idempotent"}
_UNITS: Final = {86_400: "d", 3_600: "h", 60: "min"}


def accepted_credentials(policy: MethodPolicy) -> list[Credential.ValueType]:
    """Empty if the method is public."""
    if policy.access == Access.ACCESS_PUBLIC:
        return []
    return list(policy.credentials) or [Credential.CREDENTIAL_SESSION]


def time_text(duration: Duration) -> str:
    """`5 s`, `10 min`."""
    for seconds, unit in _UNITS.items():
        if duration.seconds % seconds == 0:
            return f"{duration.seconds // seconds} {unit}"
    return f"{duration.ToNanoseconds() / 1e9:g} s"


def policy_text(policy: MethodPolicy) -> str:
    return " ".join(_sentences(policy))


def _sentences(policy: MethodPolicy) -> Iterator[str]:
    if permission := PERMISSION_NAMES.get(policy.permission):
        only_if = ", if one is active" if policy.personal else ""
        yield f"Needs the permission `{permission}` in the active organization{only_if}."
    else:
        yield _ACCESS.get(policy.access, "")
    if accepted := accepted_credentials(policy):
        yield f"Credentials: {', '.join(CREDENTIALS[kind] for kind in accepted)}."
    if policy.fresh:
        yield "Needs a sign-in within the last 10 minutes."
    if policy.fresh or policy.in_person:
        yield "Refuses administrators who impersonate the account, and services that act for it."
    if policy.before_password_change:
        yield "Accepts users who must change the password that an administrator set."
    if policy.audit:
        yield "Writes an audit event."
    if limits := "; ".join(map(_limit_text, policy.rate_limits)):
        yield f"Rate limits: {limits}."
    yield f"Deadline: {time_text(policy.default_deadline)}, at most {time_text(policy.max_deadline)}."


def _limit_text(limit: RateLimit) -> str:
    kind = "failed calls" if limit.failures_only else "calls"
    return f"{limit.count:,} {kind} in {time_text(limit.window)} per {KEYS.get(limit.key, '')}"


def policy_object(policy: MethodPolicy, options: MethodOptions) -> dict[str, Any]:
    described = {
        "access": _word(Access.Name(policy.access), "ACCESS_"),
        "credentials": [_word(Credential.Name(kind), "CREDENTIAL_") for kind in accepted_credentials(policy)],
        "permission": PERMISSION_NAMES.get(policy.permission),
        "personal": policy.personal,
        "fresh": policy.fresh,
        "inPerson": policy.in_person or policy.fresh,
        "beforePasswordChange": policy.before_password_change,
        "audit": policy.audit,
        "rateLimits": [_limit_object(limit) for limit in policy.rate_limits],
        "deadlineSeconds": {"default": _seconds(policy.default_deadline), "max": _seconds(policy.max_deadline)},
        "idempotency": _IDEMPOTENCY.get(options.idempotency_level),
    }
    return {name: value for name, value in described.items() if value not in (None, False, [])}


def _limit_object(limit: RateLimit) -> dict[str, Any]:
    described = {
        "count": limit.count,
        "windowSeconds": limit.window.seconds,
        "key": _word(RateLimitKey.Name(limit.key), "RATE_LIMIT_KEY_"),
        "durable": limit.durable,
        "failuresOnly": limit.failures_only,
    }
    return {name: value for name, value in described.items() if value is not False}


def _word(name: str, prefix: str) -> str:
    return name.removeprefix(prefix).lower()


def _seconds(duration: Duration) -> float:
    return duration.ToNanoseconds() / 1e9
