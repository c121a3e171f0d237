"""The expected result of every call by every kind of caller, derived from the descriptors alone, without the product's code."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, cast

from google.protobuf.descriptor import MethodDescriptor

from accord.app.v1 import permissions_pb2
from accord.policy.v1 import policy_pb2
from accord.policy.v1.policy_pb2 import (
    ACCESS_ADMIN,
    ACCESS_PUBLIC,
    ACCESS_SERVICE,
    ACCESS_SIGNED_IN,
    CREDENTIAL_API_KEY,
    CREDENTIAL_SESSION,
    ROLE_OWNER,
    Credential,
    MethodPolicy,
    Permission,
    Role,
)
from accord_rpc.contract import contract_services
from accord_rpc.permissions import AnyPermission
from tests.api.faces import GRPC, Ends, Face
from tests.factories import Headers

ACCEPTED: Final = "accepted"
MISSING: Final = "CREDENTIAL_MISSING"
INVALID: Final = "CREDENTIAL_INVALID"
DENIED: Final = "PERMISSION_DENIED"
NOT_FRESH: Final = "SIGN_IN_NOT_FRESH"
PASSWORD_CHANGE: Final = "PASSWORD_CHANGE_REQUIRED"

# Accord's and the application's.
_PERMISSIONS: Final = {
    Permission.ValueType(value.number): value.GetOptions().Extensions
    for value in (*Permission.DESCRIPTOR.values, *permissions_pb2.Permission.DESCRIPTOR.values)
    if value.number
}
ALL: Final = frozenset[AnyPermission](_PERMISSIONS)


@dataclass(frozen=True, kw_only=True)
class CallerTraits:
    """What the policy of a method can require of a caller."""

    credential: Credential.ValueType | None = CREDENTIAL_SESSION
    # False if it is malformed, unknown, expired or revoked, for another audience, or of a banned account.
    valid: bool = True
    organization: bool = True  # True if the session has an active organization
    permissions: frozenset[AnyPermission] = frozenset()  # in that organization, or the scopes of a personal key
    administrator: bool = False
    fresh: bool = True  # True if the sign-in is recent enough for methods that require a fresh one
    impersonated: bool = False
    password_change_required: bool = False  # True if the session was opened with a password of an administrator
    service_for_itself: bool = False
    service_for_user: bool = False


def expected_result(policy: MethodPolicy, caller: CallerTraits) -> str:
    """ACCEPTED, or the reason of the error."""
    if policy.access == ACCESS_PUBLIC:
        return ACCEPTED
    if caller.credential is None:
        return MISSING
    if not caller.valid:
        return INVALID
    if caller.password_change_required and not policy.before_password_change:
        return PASSWORD_CHANGE
    if not (_accepts_credential(policy, caller) and _grants_access(policy, caller) and _has_permission(policy, caller)):
        return DENIED
    if (policy.fresh or policy.in_person) and (caller.impersonated or caller.service_for_user):
        return DENIED
    return NOT_FRESH if policy.fresh and not caller.fresh else ACCEPTED


def _accepts_credential(policy: MethodPolicy, caller: CallerTraits) -> bool:
    return caller.credential in (policy.credentials or [CREDENTIAL_SESSION])


def _grants_access(policy: MethodPolicy, caller: CallerTraits) -> bool:
    return {
        ACCESS_SIGNED_IN: not caller.service_for_itself,
        ACCESS_ADMIN: caller.administrator,
        ACCESS_SERVICE: caller.service_for_itself,
    }[policy.access]


def _has_permission(policy: MethodPolicy, caller: CallerTraits) -> bool:
    if not policy.permission:
        return True
    if not caller.organization and not policy.personal:
        return False
    if not caller.organization and caller.credential != CREDENTIAL_API_KEY:
        return True
    return policy.permission in caller.permissions


def permissions_of(role: Role.ValueType) -> frozenset[AnyPermission]:
    """The permissions of a built-in role, by the options of each permission."""
    return frozenset(
        permission
        for permission, options in _PERMISSIONS.items()
        if role == ROLE_OWNER or role in options[policy_pb2.held_by]
    )


def policy_of(method: MethodDescriptor) -> MethodPolicy:
    """The fields that decide access. Includes the application's permission, and the service's default credentials if the
    method lists none."""
    policy, options = MethodPolicy(), method.GetOptions().Extensions
    policy.CopyFrom(options[policy_pb2.policy])
    if application := options[permissions_pb2.permission]:
        policy.permission = cast(Permission.ValueType, application)
    if not policy.credentials:
        defaults = method.containing_service.GetOptions().Extensions[policy_pb2.policy_defaults]
        policy.credentials.extend(defaults.credentials)
    return policy


def every_method() -> Iterator[MethodDescriptor]:
    """The methods of all services, in the order of the contract."""
    for service in contract_services():
        yield from service.methods


# --- the columns ------------------------------------------------------------------------------------------------------
class MatrixCaller(NamedTuple):
    """A caller of the matrix: its traits, and the headers or the connections with its credentials."""

    traits: CallerTraits
    headers: Headers = ()
    ends: Ends | None = None


# Maps the permission that a method requires to a caller: a column such as `role with all other permissions` has one for each.
Column = Callable[[AnyPermission], MatrixCaller]
Columns = Mapping[str, Column]


class Cell(NamedTuple):
    method: MethodDescriptor
    column: str
    expected: str
    actual: str
    face: Face = GRPC

    def __str__(self) -> str:
        called = f"{self.method.full_name}, called by {self.column} through {self.face}"
        return f"{called}: expected {self.expected}, got {self.actual}"


# --- the table --------------------------------------------------------------------------------------------------------
_MARKS: Final = {ACCEPTED: "●", MISSING: "◦", INVALID: "×", DENIED: "–", NOT_FRESH: "~", PASSWORD_CHANGE: "p"}
_COLOURS: Final = {ACCEPTED: "32;1", MISSING: "90", INVALID: "31", DENIED: "33", NOT_FRESH: "36", PASSWORD_CHANGE: "35"}
_WRONG: Final = "41;97"
_MARGIN: Final = 56


def table(cells: Sequence[Cell], *, colour: bool) -> str:
    """A line for each method, a column for each caller."""
    paint = _painted if colour else _plain
    columns = list(dict.fromkeys(cell.column for cell in cells))
    lines = [*_headings(columns, paint)]
    for service, rows in _by_service(cells).items():
        lines += ["", paint(service, "1")]
        lines += [_row(method, row, paint) for method, row in rows.items()]
    legend = "   ".join(f"{paint(mark, _COLOURS[reason])} {reason}" for reason, mark in _MARKS.items())
    unexpected = sum(cell.actual != cell.expected for cell in cells)
    return "\n".join([*lines, "", legend, f"{len(cells)} calls, {unexpected} with an unexpected result."])


Paint = Callable[[str, str], str]


def _painted(text: str, code: str) -> str:
    return f"\033[{code}m{text}\033[0m"


def _plain(text: str, _: str) -> str:
    return text


def _headings(columns: Sequence[str], paint: Paint) -> Iterator[str]:
    """One name per line, each with a vertical line down to its column."""
    for place, name in enumerate(columns):
        yield " " * _MARGIN + paint("│ " * place, "90") + name
    yield " " * _MARGIN + paint("│ " * len(columns), "90")


def _by_service(cells: Sequence[Cell]) -> dict[str, dict[MethodDescriptor, list[Cell]]]:
    services: dict[str, dict[MethodDescriptor, list[Cell]]] = {}
    for cell in cells:
        services.setdefault(cell.method.containing_service.name, {}).setdefault(cell.method, []).append(cell)
    return services


def _row(method: MethodDescriptor, cells: Sequence[Cell], paint: Paint) -> str:
    marks = " ".join(
        paint(_mark(cell), _COLOURS[cell.expected] if cell.actual == cell.expected else _WRONG) for cell in cells
    )
    requirement = _requirement(policy_of(method))
    return f"  {method.name:<25}" + paint(f"{requirement:<{_MARGIN - 27}}", "90") + marks


def _mark(cell: Cell) -> str:
    return _MARKS.get(cell.actual, "?") if cell.actual == cell.expected else "!"


def _requirement(policy: MethodPolicy) -> str:
    """The permission or the kind of access that the policy requires."""
    if policy.permission:
        words = _PERMISSIONS[policy.permission][policy_pb2.permission_name]
    else:
        words = policy_pb2.Access.Name(policy.access).removeprefix("ACCESS_").lower().replace("_", " ")
    return words + (", fresh" if policy.fresh else ", in person" if policy.in_person else "")
