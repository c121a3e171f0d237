"""Writes people, organizations and their rows to the database directly, for tests that need many in any state."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from functools import cache, cached_property
from itertools import count
from typing import Any, Final, NamedTuple
from uuid import UUID, uuid4

import psycopg
from sqlalchemy import Connection, Table, literal, select

from accord_api.registration import SERVICES
from accord_auth.tokens import API_KEY_PREFIX, INVITATION_PREFIX, new_token, token_hash
from accord_db.engine.database import Database
from accord_db.engine.ids import uuid7
from accord_db.schema import metadata
from accord_rpc.fields import rules_of
from accord_rpc.openapi.values import matching
from accord_rpc.permissions import AnyPermission, names
from tests.factories import Person, signed_in_person
from tests.rows import Row, Rows, connected, has_owner, of_owner

Permissions = Collection[AnyPermission]


_number: Final = count()


def _patterned(table: str) -> dict[str, str]:
    """Texts for the columns whose fields have a pattern of their own, another one for each row."""
    return {name: matching(pattern, next(_number)) for name, pattern in _patterns().get(table, {}).items()}


@cache
def _patterns() -> dict[str, dict[str, str]]:
    """Patterns by table and column."""
    resources = [each for service in SERVICES for each in getattr(service, "resources", {}).items()]
    return {
        model.__tablename__: {
            field.name: pattern
            for field in message.DESCRIPTOR.fields
            if (pattern := rules_of(field).string.pattern) and "Cc" not in pattern and not field.is_repeated
        }
        for message, model in resources
    }


class Key(NamedTuple):
    id: UUID
    key: str


class Invited(NamedTuple):
    id: UUID
    token: str


@dataclass(frozen=True)
class World:
    database: Database
    dsn: str

    @cached_property
    def _connection(self) -> psycopg.Connection:
        return psycopg.connect(self.dsn, autocommit=True)

    @cached_property
    def _rows(self) -> Connection:
        return connected(self.dsn)

    def row(self, table: Table, owner: Person, organization: UUID | None, **given: Any) -> Row:
        """A row of the organization. Without one, or if the table has no organization column, a row of the person."""
        given = _patterned(table.name) | given
        with self._rows.begin():
            return Rows(self._rows, owner.account_id, organization).insert(table, **given)

    def write(self, statement: str, *values: object) -> None:
        assert self._connection.execute(statement.encode(), values).rowcount == 1

    def complete(self, owner: Person, organization: UUID, but: Collection[str]) -> None:
        """Inserts a row into each table in which the owner has none, except the tables in `but`."""
        with self._rows.begin():
            rows = Rows(self._rows, owner.account_id, organization)
            for table in filter(has_owner, metadata.sorted_tables):
                theirs = select(literal(1)).select_from(table).where(of_owner(table, owner.account_id, organization))
                if table.name not in but and self._rows.execute(theirs).first() is None:
                    rows.insert(table)

    def close(self) -> None:
        self._connection.close()
        self._rows.close()

    async def person(self, *, lifetime: timedelta = timedelta(hours=1)) -> Person:
        return await signed_in_person(self.database, lifetime=lifetime)

    def organization(self) -> UUID:
        made = uuid7()
        self.write("INSERT INTO organizations (id, name, slug) VALUES (%s, 'Acme', %s)", made, f"a{made.hex}")
        return made

    def delete_organizations_of(self, owner: Person) -> None:
        theirs = "SELECT organization_id FROM members WHERE account_id = %s"
        self.write(f"UPDATE organizations SET deleted_at = now() WHERE id = ({theirs})", owner.account_id)

    async def member(self, of: UUID, role: str | None, permissions: Permissions = ()) -> Person:
        """A member with the organization active in the session. `permissions` are granted by a custom role."""
        person = await self.person()
        self.join(person, of, role)
        self.activate(person, of)
        if permissions:
            self.give(person, of, self.role(of, permissions))
        return person

    def join(self, person: Person, organization: UUID, role: str | None) -> None:
        row = (organization, person.account_id, role)
        self.write("INSERT INTO members (organization_id, account_id, role) VALUES (%s, %s, %s)", *row)

    def leave(self, person: Person, organization: UUID) -> None:
        self.write(
            "DELETE FROM members WHERE (organization_id, account_id) = (%s, %s)", organization, person.account_id
        )

    def demote(self, person: Person, organization: UUID, role: str | None) -> None:
        where = "WHERE (organization_id, account_id) = (%s, %s)"
        self.write(f"UPDATE members SET role = %s {where}", role, organization, person.account_id)

    def activate(self, person: Person, organization: UUID) -> None:
        self.change_session(person, "active_organization_id = %s", organization)

    def role(self, of: UUID, permissions: Permissions) -> UUID:
        made = uuid7()
        row = (made, of, uuid4().hex, names(permissions))
        self.write("INSERT INTO roles (id, organization_id, name, permissions) VALUES (%s, %s, %s, %s)", *row)
        return made

    def give(self, person: Person, organization: UUID, role: UUID) -> None:
        row = (organization, person.account_id, role)
        self.write("INSERT INTO member_roles (organization_id, account_id, role_id) VALUES (%s, %s, %s)", *row)

    def key(self, of: UUID | None, creator: Person, scopes: Permissions, change: str = "name = 'CI'") -> Key:
        """A personal key if `of` is None. `change` is the SET clause applied to the new row."""
        made, key = uuid7(), new_token(API_KEY_PREFIX)
        self.write(
            "INSERT INTO api_keys (id, organization_id, created_by, name, prefix, key_hash, scopes)"
            " VALUES (%s, %s, %s, 'A key', %s, %s, %s)",
            *(made, of, creator.account_id, key[:12], token_hash(key), names(scopes)),
        )
        self.write(f"UPDATE api_keys SET {change} WHERE id = %s", made)
        return Key(made, key)

    def invitation(self, of: UUID, inviter: Person, email: str | None = None) -> Invited:
        """An invitation for `email`, or for an unused address if `email` is None."""
        made, token = uuid7(), new_token(INVITATION_PREFIX)
        self.write(
            "INSERT INTO invitations (id, organization_id, email, role, role_ids, token_hash, created_by, expires_at)"
            " VALUES (%s, %s, %s, 'member', '{}', %s, %s, now() + interval '7 days')",
            *(made, of, email or f"{made.hex}@example.com", token_hash(token), inviter.account_id),
        )
        return Invited(made, token)

    def change_session(self, of: Person, change: str, *values: object) -> None:
        self.write(f"UPDATE sessions SET {change} WHERE id = %s", *values, of.session_id)

    def change_account(self, of: Person, change: str, *values: object) -> None:
        self.write(f"UPDATE accounts SET {change} WHERE id = %s", *values, of.account_id)
