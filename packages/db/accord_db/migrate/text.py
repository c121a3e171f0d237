"""The encoding and collation of a database."""

from dataclasses import dataclass
from typing import NamedTuple

from accord_db.migrate.state import connected

_DATABASE = """
    SELECT to_jsonb(d), pg_encoding_to_char(d.encoding), pg_database_collation_actual_version(d.oid)
    FROM pg_database d WHERE datname = current_database()
"""
_CREATE_UTF8 = (
    "Accord stores text as UTF-8. Create a database with CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0, and move the "
    "data with pg_dump and pg_restore."
)
_REINDEX = (
    "Indexes on text may be out of order, and unique ones miss duplicates. Run: REINDEX DATABASE {0}; "
    "ALTER DATABASE {0} REFRESH COLLATION VERSION;"
)


class TextProblem(NamedTuple):
    problem: str
    remedy: str


@dataclass(frozen=True, slots=True)
class TextSettings:
    encoding: str
    locale: str
    # Versions of the collation: when indexes were built, and in the server's libraries now. None: it has no version.
    built_version: str | None
    actual_version: str | None
    database: str

    @property
    def encoding_problem(self) -> TextProblem | None:
        if self.encoding == "UTF8":
            return None
        return TextProblem(f"the encoding of the database is {self.encoding}", _CREATE_UTF8)

    @property
    def collation_problem(self) -> TextProblem | None:
        if self.built_version == self.actual_version:
            return None
        built, actual = f"version {self.built_version}", f"version {self.actual_version}"
        problem = f"indexes were built with {built} of the collation {self.locale}, and the server has {actual}"
        return TextProblem(problem, _REINDEX.format(f'"{self.database}"'))


def read_text_settings(dsn: str) -> TextSettings:
    with connected(dsn, writable=False) as connection:
        row = connection.execute(_DATABASE).fetchone()
    assert row is not None, "a connection has a database"
    database, encoding, actual = row
    locale = database["datcollate"]
    if database["datlocprovider"] != "c":  # PostgreSQL 17 renamed the column
        locale = database.get("datlocale") or database.get("daticulocale")
    return TextSettings(encoding, locale, database["datcollversion"], actual, database["datname"])
