"""Two databases with the same in them: 100 people, each signed in once, with 1,000 tasks each. In Accord's each has an
organization besides, with 100 tasks and an API key."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeAlias
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

from accord_auth.tokens import API_KEY_PREFIX, new_session_token, new_token, token_hash
from accord_db import migrate

Connection: TypeAlias = "psycopg.Connection[tuple[object, ...]]"

PEOPLE = 100
PEER_SCHEMA = Path(__file__).parent / "peer" / "schema.sql"

# UUIDv7, as the application makes them, with the tasks' times of creation.
ACCOUNTS = """
    INSERT INTO accounts (id, email, display_name, password_hash)
    SELECT uuidv7(), 'user' || u || '@example.com', 'User ' || u, 'none' FROM generate_series(1, %s) u
"""
TASKS = """
    INSERT INTO tasks (id, title, description, completed, created_at, updated_at, created_by)
    SELECT uuidv7(-age), 'Task number ' || t || ' of user number ' || u, repeat('A description of the work. ', 4),
           t % 3 = 0, now() - age, now() - age, id
    FROM generate_series(0, 999) t, make_interval(mins => t) age,
         (SELECT id, row_number() OVER (ORDER BY id) u FROM accounts) a
"""
SESSIONS = """
    INSERT INTO sessions (id, account_id, token_hash, expires_at) VALUES (uuidv7(), %s, %s, now() + interval '30 days')
"""
ORGANIZATIONS = """
    INSERT INTO organizations (id, name, slug) SELECT uuidv7(), email, 'organization-' || id FROM accounts
"""
MEMBERS = """
    INSERT INTO members (organization_id, account_id, role)
    SELECT o.id, a.id, 'owner' FROM organizations o JOIN accounts a ON a.email = o.name
"""
SHARED_TASKS = """
    INSERT INTO tasks (id, title, description, completed, created_by, organization_id)
    SELECT uuidv7(), 'Shared task number ' || t, repeat('A description of the work. ', 4), t % 3 = 0, account_id, organization_id
    FROM generate_series(0, 99) t, members
"""
API_KEYS = """
    INSERT INTO api_keys (id, organization_id, created_by, name, prefix, key_hash, scopes)
    SELECT uuidv7(), organization_id, account_id, 'bench', %s, %s, '{tasks.read}' FROM members WHERE account_id = %s
"""
SOME_TASK = "SELECT id FROM tasks WHERE owner_id = %s ORDER BY created_at OFFSET %s LIMIT 1"
SOME_SHARED_TASK = """
    SELECT t.id FROM tasks t JOIN members m ON m.organization_id = t.owner_id WHERE m.account_id = %s ORDER BY t.id LIMIT 1
"""


class Person(NamedTuple):
    """A signed-in user with a task, and an API key of their organization with a task of it."""

    token: str
    task_id: str
    api_key: str = ""
    shared_task_id: str = ""


class Databases(NamedTuple):
    """The addresses of both, and who is in them."""

    peer: str
    peer_people: Sequence[Person]
    accord: str
    accord_people: Sequence[Person]


def fill(server: str) -> Databases:
    return Databases(_fill_peer(server), _peer_people(), *_fill_accord(server))


def _fill_peer(server: str) -> str:
    with _new_database(server, "peer") as (dsn, connection):
        connection.execute(PEER_SCHEMA.read_bytes())
    return dsn


def _peer_people() -> list[Person]:
    return [
        Person(f"bench-token-{number:06}", f"10000000-0000-4000-8000-{number * 1000 + number * 7 % 1000:012}")
        for number in range(1, PEOPLE + 1)
    ]


def _fill_accord(server: str) -> tuple[str, list[Person]]:
    with _new_database(server, "accord_bench") as (dsn, connection):
        migrate.apply(dsn)
        connection.execute(ACCOUNTS, [PEOPLE])
        for rows in (TASKS, ORGANIZATIONS, MEMBERS, SHARED_TASKS):
            connection.execute(rows)
        accounts = connection.execute("SELECT id FROM accounts ORDER BY id").fetchall()
        people = [_sign_in(connection, account, place * 7) for place, (account,) in enumerate(accounts)]
    return dsn, people


def _sign_in(connection: Connection, account: object, place: int) -> Person:
    token = new_session_token()
    connection.execute(SESSIONS, [account, token_hash(token)])
    key = new_token(API_KEY_PREFIX)
    connection.execute(API_KEYS, [key[:12], token_hash(key), account])
    task = connection.execute(SOME_TASK, [account, place]).fetchone()
    shared_task = connection.execute(SOME_SHARED_TASK, [account]).fetchone()
    assert task is not None
    assert shared_task is not None
    return Person(token, str(task[0]), key, str(shared_task[0]))


@contextmanager
def _new_database(server: str, name: str) -> Iterator[tuple[str, Connection]]:
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    dsn = urlsplit(server)._replace(path=f"/{name}").geturl()
    with psycopg.connect(dsn, autocommit=True) as connection:
        yield dsn, connection
        connection.execute("VACUUM ANALYZE")
        connection.execute("CHECKPOINT")
