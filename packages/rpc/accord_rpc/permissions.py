"""Permissions and built-in roles, as the contract has them."""

import re
from collections.abc import Iterable, Mapping
from typing import Final

from google.protobuf.descriptor import EnumDescriptor

from accord.policy.v1 import policy_pb2
from accord.policy.v1.policy_pb2 import ROLE_OWNER, Permission, Role

_VALUES: Final = [value for value in Permission.DESCRIPTOR.values if value.number]


PERMISSION_NAMES: Final[Mapping[Permission.ValueType, str]] = {
    Permission.ValueType(value.number): value.GetOptions().Extensions[policy_pb2.permission_name] for value in _VALUES
}
"""By which they are stored: `tasks.write`."""

_BY_NAME: Final = {name: permission for permission, name in PERMISSION_NAMES.items()}

ROLE_NAMES: Final[Mapping[Role.ValueType, str]] = {
    Role.ValueType(value.number): value.name.removeprefix("ROLE_").lower()
    for value in Role.DESCRIPTOR.values
    if value.number
}
"""By which they are stored: `owner`."""

ROLES: Final[Mapping[str, Role.ValueType]] = {name: role for role, name in ROLE_NAMES.items()}

_HELD: Final[Mapping[str, frozenset[Permission.ValueType]]] = {
    name: frozenset(
        Permission.ValueType(value.number)
        for value in _VALUES
        if role == ROLE_OWNER or role in value.GetOptions().Extensions[policy_pb2.held_by]
    )
    for role, name in ROLE_NAMES.items()
}


def held(role: str | None, names: Iterable[str] = ()) -> frozenset[Permission.ValueType]:
    """What the built-in role and the names of permissions give together. Names that this release does not know, of a later
    one, give nothing."""
    permissions = _HELD[role] if role else frozenset[Permission.ValueType]()
    return permissions | frozenset(_BY_NAME[name] for name in names if name in _BY_NAME) if names else permissions


def names(permissions: Iterable[Permission.ValueType]) -> list[str]:
    """As they are stored, in the order of the contract."""
    return [PERMISSION_NAMES[permission] for permission in sorted(set(permissions))]


_NAME: Final = re.compile(r"[a-z]+(_[a-z]+)*\.[a-z]+(_[a-z]+)*")


def permission_faults(permissions: EnumDescriptor = Permission.DESCRIPTOR) -> list[str]:
    """A sentence for each permission of the contract that cannot be stored, or that it gives to a role that is none."""
    declared = {value.name: value.GetOptions().Extensions for value in permissions.values if value.number}
    stored = [options[policy_pb2.permission_name] for options in declared.values()]
    faults = []
    for name, options in declared.items():
        called = options[policy_pb2.permission_name]
        if not _NAME.fullmatch(called):
            faults.append(f"{name}: has no name like `tasks.write` (option accord.policy.v1.permission_name)")
        elif stored.count(called) > 1:
            faults.append(f"{name}: shares its name {called} with another permission")
        if any(role not in ROLE_NAMES for role in options[policy_pb2.held_by]):
            faults.append(f"{name}: is held by a role that the contract does not have")
    return faults
