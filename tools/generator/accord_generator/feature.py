"""A feature to write: its names, owner, fields, methods and lists."""

from dataclasses import dataclass
from enum import StrEnum

from accord_generator.fields import Field
from accord_generator.names import Names


class Owner(StrEnum):
    """Who owns the rows, and so who can read them."""

    ORGANIZATION = "organization"
    ACCOUNT = "account"
    # The active organization or, without one, the account.
    EITHER = "either"
    # The installation, or the owner of a row's parent. A generated feature cannot belong or refer to such rows.
    NONE = "none"


class Standard(StrEnum):
    """The methods that the generator writes, in the order of the contract."""

    LIST = "list"
    GET = "get"
    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"
    UNDELETE = "undelete"


@dataclass(frozen=True, slots=True)
class Existing:
    """A feature of the repository that others refer to: what the generated code needs of it. `model` is the class of the table."""

    names: Names
    model: str
    owner: Owner
    has_soft_delete: bool


@dataclass(frozen=True, slots=True)
class Feature:
    names: Names
    fields: tuple[Field, ...]
    owner: Owner = Owner.ORGANIZATION
    # The feature whose rows the rows of this one belong to.
    parent: Existing | None = None
    # The features that the fields refer to, by plural name.
    referred: tuple[Existing, ...] = ()
    methods: tuple[Standard, ...] = tuple(Standard)
    soft_delete: bool = True
    has_etag: bool = True
    # Names of the fields by which lists are filtered and ordered, and the text field that is searched.
    filters: tuple[str, ...] = ()
    orders: tuple[str, ...] = ("created_at", "updated_at")
    search: str | None = None
    # Names of the fields that lists return without `view: FULL`; empty for all.
    basic: tuple[str, ...] = ()

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

    @property
    def rows_owner(self) -> Owner:
        return self.parent.owner if self.parent else self.owner

    @property
    def has_permissions(self) -> bool:
        return self.rows_owner in (Owner.ORGANIZATION, Owner.EITHER)

    @property
    def is_repeatable(self) -> bool:
        """Whether a Create request has a `request_id`: responses with sensitive fields are not stored."""
        return not any(each.sensitive for each in self.fields)

    @property
    def only_full(self) -> list[Field]:
        """The fields that the view BASIC leaves out."""
        return [each for each in self.fields if self.basic and each.name not in self.basic]
