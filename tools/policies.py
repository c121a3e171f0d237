"""Writes docs/policies.md from the contract: the effective policy of every method. With --check it only reports whether the
page is up to date."""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from google.api import annotations_pb2
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

from accord.policy.v1.policy_pb2 import Access, MethodPolicy, RateLimit
from accord_rpc.contract import contract_services
from accord_rpc.openapi.policies import CREDENTIALS, KEYS, accepted_credentials, time_text
from accord_rpc.permissions import PERMISSION_NAMES, ROLES, held
from accord_rpc.policy import effective_policy

PAGE: Final = Path(__file__).resolve().parent.parent / "docs/policies.md"

INTRODUCTION: Final = """\
# Policies

`tools/policies.py` generates this page from the contract. A test fails if the page is out of date, so a change of a
policy appears here in the review.

- `make matrix` calls every method as every kind of caller and compares the result with the contract.
- `make mutations` disables the access checks one by one in a copy of the tree, and fails if no test notices. It takes about
  four minutes, so `make check` only verifies that the mutated lines exist. Run it after you change an access check or
  its tests.
"""

PERMISSIONS: Final = """\
## Permissions

The permissions of the built-in roles. An organization's custom role can have any permission. An API key has the
permissions in its scopes that its creator has at the time of the call.
"""

METHODS: Final = """\
## Methods

The policies include the defaults of their service (`policy_defaults`).

- **Route**: the HTTP method and the path of the method in REST (`google.api.http`).
- **Caller**: the permission that the caller needs in the active organization, or the kind of caller. *Personal* methods
  also work without an active organization, on the caller's own data; a personal API key then needs the permission among
  its scopes.
- **Credentials**: the credentials that the method accepts. A service token acts for a person, except in methods for
  services. A certificate identifies a service.
- **Other rules**: *recent* requires a sign-in within the last 10 minutes. *In person* refuses impersonating administrators
  and services that act for a person; *recent* implies it. *Before a password change* accepts sessions that were opened with
  a password of an administrator. *Audited* methods write an audit event.
- **Rate limits**: every limit applies. Limits count calls, or only *failed* calls. *Durable* limits are counted in the
  database, for all gateways together.
- **Deadline**: the default / the maximum.
"""

_YES: Final = "●"
_ACCESS: Final = {
    Access.ACCESS_PUBLIC: "public",
    Access.ACCESS_SIGNED_IN: "signed in",
    Access.ACCESS_ADMIN: "administrators",
    Access.ACCESS_SERVICE: "services",
}


def main(arguments: list[str]) -> int:
    expected = page()
    if "--check" not in arguments:
        PAGE.write_text(expected)
        return 0
    if PAGE.read_text() == expected:
        return 0
    print(f"{PAGE} is out of date. Run `make stubs`.", file=sys.stderr)
    return 1


def page() -> str:
    services = [section for service in contract_services() for section in _service(service)]
    return "\n".join([INTRODUCTION, PERMISSIONS, *_permissions(), "", METHODS, *services])


def _permissions() -> Iterator[str]:
    yield from _head("Permission", *ROLES)
    for permission, name in PERMISSION_NAMES.items():
        yield _row(f"`{name}`", *(_YES * (permission in held(role)) for role in ROLES))


def _service(service: ServiceDescriptor) -> Iterator[str]:
    yield f"### {service.name}\n"
    yield from _head("Method", "Route", "Caller", "Credentials", "Other rules", "Rate limits", "Deadline")
    yield from map(_method, service.methods)
    yield ""


def _method(method: MethodDescriptor) -> str:
    policy = effective_policy(method)
    deadline = f"{time_text(policy.default_deadline)} / {time_text(policy.max_deadline)}"
    limits = "; ".join(map(_limit, policy.rate_limits))
    return _row(
        f"`{method.name}`", _route(method), _caller(policy), _credentials(policy), _rules(policy), limits, deadline
    )


def _route(method: MethodDescriptor) -> str:
    rule = method.GetOptions().Extensions[annotations_pb2.http]
    verb = rule.WhichOneof("pattern")
    return f"`{verb.upper()} {getattr(rule, verb)}`" if verb else "none"


def _caller(policy: MethodPolicy) -> str:
    if not policy.permission:
        return _ACCESS[policy.access]
    return f"`{PERMISSION_NAMES[policy.permission]}`" + ", personal" * policy.personal


def _credentials(policy: MethodPolicy) -> str:
    return ", ".join(CREDENTIALS[kind] for kind in accepted_credentials(policy)) or "none"


def _rules(policy: MethodPolicy) -> str:
    rules = {
        "recent": policy.fresh,
        "in person": policy.in_person and not policy.fresh,
        "before a password change": policy.before_password_change,
        "audited": policy.audit,
    }
    return ", ".join(rule for rule, applies in rules.items() if applies)


def _limit(limit: RateLimit) -> str:
    failed = " failed" if limit.failures_only else ""
    durable = ", durable" if limit.durable else ""
    return f"{limit.count:,}{failed} / {time_text(limit.window)} per {KEYS[limit.key]}{durable}"


def _head(*columns: str) -> Iterable[str]:
    return _row(*columns), f"|{'---|' * len(columns)}"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
