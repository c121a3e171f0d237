"""A feature to write: its names, owner, fields, methods and lists."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from accord_generator.fields import Field
from accord_generator.names import Names


class Owner(StrEnum):
    """Who owns the rows, and so who can read them."""

    ORGANIZATION = "organization"
    ACCOUNT = "account"
    # The active organization or, without one, the account.
    EITHER = "either"
    # Nobody: only administrators of the installation read and write the rows.
    NONE = "none"


class Standard(StrEnum):
    """The methods that the generator writes, in the order of the contract."""

    LIST = "list"
    GET = "get"
    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"
    UNDELETE = "undelete"
    BATCH_GET = "batch_get"
    BATCH_CREATE = "batch_create"


SINGLE: Final = (Standard.LIST, Standard.GET, Standard.CREATE, Standard.UPDATE, Standard.DELETE, Standard.UNDELETE)
BATCH: Final = (Standard.BATCH_GET, Standard.BATCH_CREATE)


@dataclass(frozen=True, slots=True)
class Existing:
    """A feature of the repository that others refer to: what the generated code needs of it.

    `model` is the class of the table. `owner_parameters` are those of its `get_…` query besides the id."""

    names: Names
    model: str
    owner: Owner
    has_soft_delete: bool
    # Of a child: the features above, the direct parent first.
    parents: "tuple[Existing, ...]" = ()
    # `accord.app.v1` or `accord.policy.v1`, and the names of the values; None for methods without a permission.
    permissions: "Permissions | None" = None


@dataclass(frozen=True, slots=True)
class Permissions:
    """The permissions of the reading and the writing methods."""

    read: str
    write: str
    # Declared by the application; Accord's own are in the policy.
    of_application: bool = True


@dataclass(frozen=True, slots=True)
class Feature:
    names: Names
    fields: tuple[Field, ...]
    owner: Owner = Owner.ORGANIZATION
    # The feature whose rows the rows of this one belong to.
    parent: Existing | None = None
    # The features that the fields refer to, by plural name.
    referred: tuple[Existing, ...] = ()
    methods: tuple[Standard, ...] = SINGLE
    soft_delete: bool = True
    has_etag: bool = True
    # Names of the fields by which lists are filtered and ordered, and the text field that is searched.
    filters: tuple[str, ...] = ()
    orders: tuple[str, ...] = ("created_at", "updated_at")
    search: str | None = None
    # Names of the fields that lists return without `view: FULL`; empty for all.
    basic: tuple[str, ...] = ()

    def has(self, *methods: Standard) -> bool:
        return any(method in self.methods for method in methods)

    def field(self, name: str) -> Field:
        return next(each for each in self.fields if each.name == name)

    def existing(self, plural: str) -> Existing:
        return next(each for each in self.referred if each.names.plural == plural)

    @property
    def settable(self) -> list[Field]:
        return [each for each in self.fields if each.is_settable]

    @property
    def changeable(self) -> list[Field]:
        return [each for each in self.fields if each.is_changeable]

    @property
    def uniques(self) -> list[Field]:
        return [each for each in self.fields if each.unique]

    @property
    def references(self) -> list[Field]:
        return [each for each in self.fields if each.reference]


def ordered_methods(methods: Sequence[Standard]) -> tuple[Standard, ...]:
    """In the order of the contract."""
    return tuple(method for method in Standard if method in methods)
