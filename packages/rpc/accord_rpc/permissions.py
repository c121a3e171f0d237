"""Permissions and built-in roles of the contract. Permissions are Accord's or the application's."""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, TypeAlias, cast

from google.protobuf.descriptor import EnumDescriptor, EnumValueDescriptor

from accord.app.v1 import permissions_pb2
from accord.policy.v1 import policy_pb2
from accord.policy.v1.policy_pb2 import ROLE_OWNER, Permission, Role
from accord_rpc.application import FIRST_NUMBER, number_faults, path, values

AnyPermission: TypeAlias = Permission.ValueType | permissions_pb2.Permission.ValueType
AppPermission: TypeAlias = permissions_pb2.Permission.ValueType

_VALUES: Final[dict[AnyPermission, EnumValueDescriptor]] = {
    Permission.ValueType(value.number): value
    for value in values(Permission.DESCRIPTOR, permissions_pb2.Permission.DESCRIPTOR)
}


def _name(value: EnumValueDescriptor) -> str:
    return value.GetOptions().Extensions[policy_pb2.permission_name]


def _holders(value: EnumValueDescriptor) -> Sequence[Role.ValueType]:
    return value.GetOptions().Extensions[policy_pb2.held_by]


PERMISSION_NAMES: Final[dict[AnyPermission, str]] = {permission: _name(value) for permission, value in _VALUES.items()}
"""The names under which the database stores permissions: `tasks.write`."""

_BY_NAME: Final = {name: permission for permission, name in PERMISSION_NAMES.items()}

ROLE_NAMES: Final[dict[Role.ValueType, str]] = {
    Role.ValueType(value.number): value.name.removeprefix("ROLE_").lower()
    for value in Role.DESCRIPTOR.values
    if value.number
}
"""The names under which the database stores built-in roles: `owner`."""

ROLES: Final[dict[str, Role.ValueType]] = {name: role for role, name in ROLE_NAMES.items()}

_HELD: Final[dict[str, frozenset[AnyPermission]]] = {
    name: frozenset(
        permission for permission, value in _VALUES.items() if role == ROLE_OWNER or role in _holders(value)
    )
    for role, name in ROLE_NAMES.items()
}


def held(role: str | None, names: Iterable[str] = ()) -> frozenset[AnyPermission]:
    """The permissions of the built-in role and the named permissions. A name that this release does not know, because a
    later release stored it, adds nothing."""
    permissions = _HELD[role] if role else frozenset[AnyPermission]()
    return permissions | frozenset(_BY_NAME[name] for name in names if name in _BY_NAME) if names else permissions


def names(permissions: Iterable[AnyPermission]) -> list[str]:
    """The stored names, in the order of the numbers."""
    return [PERMISSION_NAMES[permission] for permission in sorted(set(permissions))]


def of_accord(permissions: Iterable[AnyPermission]) -> list[Permission.ValueType]:
    return [Permission.ValueType(number) for number in sorted(set(permissions)) if number < FIRST_NUMBER]


def of_application(permissions: Iterable[AnyPermission]) -> list[AppPermission]:
    return [cast(AppPermission, number) for number in sorted(set(permissions)) if number >= FIRST_NUMBER]


def join_permissions(changes: Any, field: str, before: Iterable[str]) -> None:
    """Replaces `field` and `app_<field>` in the changes of a resource by the names that the one column for both stores. A list
    that does not change keeps the names it had before."""
    if changes.keys().isdisjoint({field, f"app_{field}"}):
        return
    unchanged = held(None, before)
    accord = changes.get(field, names(of_accord(unchanged)))
    changes[field] = [*accord, *changes.pop(f"app_{field}", names(of_application(unchanged)))]


_NAME: Final = re.compile(r"[a-z]+(_[a-z]+)*\.[a-z]+(_[a-z]+)*")


def permission_faults(
    accord: EnumDescriptor = Permission.DESCRIPTOR,
    application: EnumDescriptor = permissions_pb2.Permission.DESCRIPTOR,
) -> list[str]:
    """A sentence for each permission that cannot be stored or that an unknown role holds."""
    return [*number_faults(accord, application), *_name_faults(values(accord, application))]


def _name_faults(declared: Sequence[EnumValueDescriptor]) -> Iterator[str]:
    stored = [_name(value) for value in declared]
    for value in declared:
        if not _NAME.fullmatch(_name(value)):
            yield f"{path(value)}: has no name like `tasks.write` (option accord.policy.v1.permission_name)"
        elif stored.count(_name(value)) > 1:
            yield f"{path(value)}: shares its name {_name(value)} with another permission"
        if any(role not in ROLE_NAMES for role in _holders(value)):
            yield f"{path(value)}: is held by a role that the contract does not have"
