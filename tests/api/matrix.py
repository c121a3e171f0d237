"""Who may call what, worked out from the contract's descriptors alone: nothing of what decides it in earnest is asked."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, cast

import grpc
from google.protobuf.descriptor import MethodDescriptor

from accord.app.v1 import permissions_pb2
from accord.policy.v1 import policy_pb2
from accord.policy.v1.policy_pb2 import (
    ACCESS_ADMIN,
    ACCESS_PUBLIC,
    ACCESS_SERVICE,
    ACCESS_SIGNED_IN,
    CREDENTIAL_SESSION,
    ROLE_OWNER,
    Credential,
    MethodPolicy,
    Permission,
    Role,
)
from accord_rpc.contract import contract_services
from accord_rpc.permissions import AnyPermission
from tests.factories import Headers

LET_IN: Final = "let in"
MISSING: Final = "CREDENTIAL_MISSING"
INVALID: Final = "CREDENTIAL_INVALID"
DENIED: Final = "PERMISSION_DENIED"
STALE: Final = "SIGN_IN_NOT_FRESH"

# Accord's and the application's.
_PERMISSIONS: Final = {
    Permission.ValueType(value.number): value.GetOptions().Extensions
    for value in (*Permission.DESCRIPTOR.values, *permissions_pb2.Permission.DESCRIPTOR.values)
    if value.number
}
ALL: Final = frozenset[AnyPermission](_PERMISSIONS)


@dataclass(frozen=True, kw_only=True)
class Caller:
    """What a call comes with, in the words of the contract."""

    credential: Credential.ValueType | None = CREDENTIAL_SESSION
    # Not malformed, unknown, expired or revoked, nor of somebody who is banned, nor for somebody else.
    good: bool = True
    organization: bool = True  # whether one is active
    permissions: frozenset[AnyPermission] = frozenset()  # that are held there
    administrator: bool = False
    recent: bool = True  # whether they signed in a moment ago
    impersonated: bool = False
    service_for_itself: bool = False
    service_for_a_person: bool = False


def expected(policy: MethodPolicy, caller: Caller) -> str:
    """LET_IN, or the reason for which the call is refused."""
    if policy.access == ACCESS_PUBLIC:
        return LET_IN
    if caller.credential is None:
        return MISSING
    if not caller.good:
        return INVALID
    if not (_is_accepted(policy, caller) and _is_meant(policy, caller) and _is_permitted(policy, caller)):
        return DENIED
    if (policy.fresh or policy.in_person) and (caller.impersonated or caller.service_for_a_person):
        return DENIED
    return STALE if policy.fresh and not caller.recent else LET_IN


def _is_accepted(policy: MethodPolicy, caller: Caller) -> bool:
    return caller.credential in (policy.credentials or [CREDENTIAL_SESSION])


def _is_meant(policy: MethodPolicy, caller: Caller) -> bool:
    return {
        ACCESS_SIGNED_IN: not caller.service_for_itself,
        ACCESS_ADMIN: caller.administrator,
        ACCESS_SERVICE: caller.service_for_itself,
    }[policy.access]


def _is_permitted(policy: MethodPolicy, caller: Caller) -> bool:
    if not policy.permission or (policy.personal and not caller.organization):
        return True
    return policy.permission in caller.permissions


def held_by(role: Role.ValueType) -> frozenset[AnyPermission]:
    """The permissions of a built-in role, by the options of each permission."""
    return frozenset(
        permission
        for permission, options in _PERMISSIONS.items()
        if role == ROLE_OWNER or role in options[policy_pb2.held_by]
    )


def policy_of(method: MethodDescriptor) -> MethodPolicy:
    """The policy as far as it decides who may call: with the application's permission, and the credentials of the service's
    defaults where the method lists none."""
    policy, options = MethodPolicy(), method.GetOptions().Extensions
    policy.CopyFrom(options[policy_pb2.policy])
    if application := options[permissions_pb2.permission]:
        policy.permission = cast(Permission.ValueType, application)
    if not policy.credentials:
        defaults = method.containing_service.GetOptions().Extensions[policy_pb2.policy_defaults]
        policy.credentials.extend(defaults.credentials)
    return policy


def path_of(method: MethodDescriptor) -> str:
    return f"/{method.containing_service.full_name}/{method.name}"


def every_method() -> Iterator[MethodDescriptor]:
    """Of every service, in the order of the contract."""
    for service in contract_services():
        yield from service.methods


# --- the columns ------------------------------------------------------------------------------------------------------
class Presented(NamedTuple):
    """A caller, and what it says of itself: in its headers, and by the certificate of its connection if it has one."""

    caller: Caller
    headers: Headers = ()
    channel: grpc.aio.Channel | None = None


# By the permission that a method asks for: somebody who has just that one is somebody else for each.
Column = Callable[[AnyPermission], Presented]
Columns = Mapping[str, Column]


class Cell(NamedTuple):
    method: MethodDescriptor
    column: str
    wanted: str
    got: str

    def __str__(self) -> str:
        return f"{self.method.full_name}, called by {self.column}: {self.got}, and not {self.wanted}"


# --- the table --------------------------------------------------------------------------------------------------------
_MARKS: Final = {LET_IN: "●", MISSING: "◦", INVALID: "×", DENIED: "–", STALE: "~"}
_COLOURS: Final = {LET_IN: "32;1", MISSING: "90", INVALID: "31", DENIED: "33", STALE: "36"}
_WRONG: Final = "41;97"
_MARGIN: Final = 56


def table(cells: Sequence[Cell], *, colour: bool) -> str:
    """For people: a line for each method, a column for each caller."""
    paint = _painted if colour else _plain
    columns = list(dict.fromkeys(cell.column for cell in cells))
    lines = [*_heads(columns, paint)]
    for service, rows in _by_service(cells).items():
        lines += ["", paint(service, "1")]
        lines += [_row(method, row, paint) for method, row in rows.items()]
    legend = "   ".join(f"{paint(mark, _COLOURS[reason])} {reason}" for reason, mark in _MARKS.items())
    wrong = sum(cell.got != cell.wanted for cell in cells)
    outcome = f"{wrong} of them not as the contract says" if wrong else "all of them as the contract says"
    return "\n".join([*lines, "", legend, f"{len(cells)} calls, {outcome}."])


Paint = Callable[[str, str], str]


def _painted(text: str, code: str) -> str:
    return f"\033[{code}m{text}\033[0m"


def _plain(text: str, _: str) -> str:
    return text


def _heads(columns: Sequence[str], paint: Paint) -> Iterator[str]:
    """A stair of names, each with a line down to its column."""
    for place, name in enumerate(columns):
        yield " " * _MARGIN + paint("│ " * place, "90") + name
    yield " " * _MARGIN + paint("│ " * len(columns), "90")


def _by_service(cells: Sequence[Cell]) -> dict[str, dict[MethodDescriptor, list[Cell]]]:
    services: dict[str, dict[MethodDescriptor, list[Cell]]] = {}
    for cell in cells:
        services.setdefault(cell.method.containing_service.name, {}).setdefault(cell.method, []).append(cell)
    return services


def _row(method: MethodDescriptor, cells: Sequence[Cell], paint: Paint) -> str:
    marks = " ".join(paint(_mark(cell), _COLOURS[cell.wanted] if cell.got == cell.wanted else _WRONG) for cell in cells)
    demand = _demand(policy_of(method))
    return f"  {method.name:<25}" + paint(f"{demand:<{_MARGIN - 27}}", "90") + marks


def _mark(cell: Cell) -> str:
    return _MARKS.get(cell.got, "?") if cell.got == cell.wanted else "!"


def _demand(policy: MethodPolicy) -> str:
    """What the policy asks for, in few words."""
    if policy.permission:
        words = _PERMISSIONS[policy.permission][policy_pb2.permission_name]
    else:
        words = policy_pb2.Access.Name(policy.access).removeprefix("ACCESS_").lower().replace("_", " ")
    return words + (", fresh" if policy.fresh else ", in person" if policy.in_person else "")
