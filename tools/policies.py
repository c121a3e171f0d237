"""Writes docs/policies.md out of the contract: who may do what. With --check it only says whether the page is current."""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

from accord.policy.v1 import policy_pb2
from accord.policy.v1.policy_pb2 import ROLE_OWNER, Access, Credential, MethodPolicy, Permission, Role
from accord_rpc.contract import contract_services

PAGE: Final = Path(__file__).resolve().parent.parent / "docs/policies.md"

INTRODUCTION: Final = """\
# Who may do what

`tools/policies.py` makes this page of the contract, and a test fails while it is not current: whoever changes a policy
changes this page too, where a review sees it.

- That the gateway does as it says is shown by `make matrix`, which calls every method as every kind of caller.
- That the tests would notice if it did not is shown by `make mutations`: it breaks the guards one by one, in a copy of
  the tree, and demands each time that a test fails. That takes about four minutes, and so `make check` only looks whether
  what it breaks is still there: run it when you have changed a guard, or how one is tested.
"""

PERMISSIONS: Final = """\
## Permissions

What the built-in roles hold. A role of an organization's own holds any of them, and an API key those of its scopes that
whoever made it holds.
"""

METHODS: Final = """\
## Methods

- **Who** is what the caller must hold in the organization that is active, or who they must be. *Personal* methods serve
  people outside of any organization too, with what is theirs alone.
- **Credentials** are those that the method accepts: a session, an API key, a token of a service (that acts for a person,
  unless services call for themselves), the certificate of a service.
- **Beside**: *recent* asks for a sign-in of the last 10 minutes; *in person* takes neither an administrator who acts as
  somebody nor a service that does, and so does whatever is recent; *audited* leaves an event.
"""

_YES: Final = "●"
_WHO: Final = {
    Access.ACCESS_PUBLIC: "anybody",
    Access.ACCESS_SIGNED_IN: "whoever is signed in",
    Access.ACCESS_ADMIN: "administrators",
    Access.ACCESS_SERVICE: "services",
}
_CREDENTIALS: Final = {
    Credential.CREDENTIAL_SESSION: "session",
    Credential.CREDENTIAL_API_KEY: "API key",
    Credential.CREDENTIAL_SERVICE_TOKEN: "service token",
    Credential.CREDENTIAL_CLIENT_CERTIFICATE: "certificate",
}


def main(arguments: list[str]) -> int:
    wanted = page()
    if "--check" not in arguments:
        PAGE.write_text(wanted)
        return 0
    if PAGE.read_text() == wanted:
        return 0
    print(f"{PAGE} is not what the contract says: run python tools/policies.py", file=sys.stderr)
    return 1


def page() -> str:
    services = [section for service in contract_services() for section in _service(service)]
    return "\n".join([INTRODUCTION, PERMISSIONS, *_permissions(), "", METHODS, *services])


def _permissions() -> Iterator[str]:
    roles = {value.number: value.name.removeprefix("ROLE_").lower() for value in Role.DESCRIPTOR.values if value.number}
    yield from _head("Permission", *roles.values())
    for value in Permission.DESCRIPTOR.values:
        if value.number:
            options = value.GetOptions().Extensions
            held_by = {ROLE_OWNER, *options[policy_pb2.held_by]}
            yield _row(f"`{options[policy_pb2.permission_name]}`", *(_YES * (role in held_by) for role in roles))


def _service(service: ServiceDescriptor) -> Iterator[str]:
    yield f"### {service.name}\n"
    yield from _head("Method", "Who", "Credentials", "Beside")
    yield from map(_method, service.methods)
    yield ""


def _method(method: MethodDescriptor) -> str:
    policy = method.GetOptions().Extensions[policy_pb2.policy]
    return _row(f"`{method.name}`", _who(policy), _credentials(policy), ", ".join(_beside(policy)))


def _who(policy: MethodPolicy) -> str:
    if not policy.permission:
        return _WHO[policy.access]
    value = Permission.DESCRIPTOR.values_by_number[policy.permission]
    return f"`{value.GetOptions().Extensions[policy_pb2.permission_name]}`" + ", personal" * policy.personal


def _credentials(policy: MethodPolicy) -> str:
    if policy.access == Access.ACCESS_PUBLIC:
        return "none"
    return ", ".join(_CREDENTIALS[kind] for kind in policy.credentials or [Credential.CREDENTIAL_SESSION])


def _beside(policy: MethodPolicy) -> Iterator[str]:
    said = {"recent": policy.fresh, "in person": policy.in_person and not policy.fresh, "audited": policy.audit}
    return (word for word, is_so in said.items() if is_so)


def _head(*columns: str) -> Iterable[str]:
    return _row(*columns), f"|{'---|' * len(columns)}"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
