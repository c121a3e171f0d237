"""Two databases with the same in them: 100 people, each signed in once, with 1,000 tasks each."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeAlias
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

from accord_auth.tokens import new_session_token, token_hash
from accord_db import migrate

Connection: TypeAlias = "psycopg.Connection[tuple[object, ...]]"

PEOPLE = 100
PEER_SCHEMA = Path(__file__).parent / "peer" / "schema.sql"

# Ids as the application makes them (UUIDv7), and of the times at which the tasks are said to have been made.
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
SOME_TASK = "SELECT id FROM tasks WHERE created_by = %s ORDER BY created_at OFFSET %s LIMIT 1"


class Person(NamedTuple):
    """Somebody who is signed in, and a task of theirs."""

    token: str
    task_id: str


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
        connection.execute(TASKS)
        accounts = connection.execute("SELECT id FROM accounts ORDER BY id").fetchall()
        people = [_sign_in(connection, account, place * 7) for place, (account,) in enumerate(accounts)]
    return dsn, people


def _sign_in(connection: Connection, account: object, place: int) -> Person:
    token = new_session_token()
    connection.execute(SESSIONS, [account, token_hash(token)])
    task = connection.execute(SOME_TASK, [account, place]).fetchone()
    assert task is not None
    return Person(token, str(task[0]))


@contextmanager
def _new_database(server: str, name: str) -> Iterator[tuple[str, Connection]]:
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    dsn = urlsplit(server)._replace(path=f"/{name}").geturl()
    with psycopg.connect(dsn, autocommit=True) as connection:
        yield dsn, connection
        connection.execute("VACUUM ANALYZE")
        connection.execute("CHECKPOINT")
