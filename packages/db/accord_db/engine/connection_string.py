"""Connection strings: validation, and the parameters that Accord adds.

No error quotes a connection string or a part of one: in a malformed one the password may be anywhere.
"""

import re
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from accord_db.engine.errors import InvalidConnectionString

_SCHEMES = ("postgresql://", "postgres://")
_VALID = (
    "must look like postgresql://user:password@host:5432/database, "
    "with @ / ? % and spaces in the user and the password written as %40 %2F %3F %25 %20"
)


def parse(connection_string: str) -> dict[str, Any]:
    """The parameters, by libpq's names. Raises InvalidConnectionString."""
    try:
        parameters = conninfo_to_dict(connection_string)
    except (psycopg.Error, UnicodeError):
        raise InvalidConnectionString(f"the connection string {_VALID}") from None
    if _is_misread(connection_string, parameters):
        raise InvalidConnectionString(f"the connection string {_VALID}")
    return dict(parameters)


def parse_for_writing(connection_string: str) -> dict[str, Any]:
    """Like `parse`, for a connection to a host that accepts writes, unless the string sets target_session_attrs."""
    return {"target_session_attrs": "read-write", **parse(connection_string)}


def has_several_hosts(parameters: dict[str, Any]) -> bool:
    return "," in f"{parameters.get('host', '')}{parameters.get('hostaddr', '')}"


def url_problem(url: str) -> str | None:
    """The error message for an invalid URL, or None. Other forms that libpq accepts are not URLs."""
    try:
        valid = url.startswith(_SCHEMES) and parse(url).get("dbname")
    except InvalidConnectionString:
        valid = False
    return None if valid else _VALID


def _is_misread(connection_string: str, parameters: dict[str, Any]) -> bool:
    """Whether libpq reads a part of the password as a host, port, user or database, which its errors quote."""
    if connection_string.startswith(_SCHEMES):
        rest = connection_string.partition("://")[2]
        authority = re.split("[/?]", rest, maxsplit=1)[0]
        path, _, query = rest.removeprefix(authority).partition("?")
        has_login = "@" in authority
        if authority.count("@") > 1 or "@" in path or ("@" in query and not has_login and ":" in authority):
            return True
        if re.search(r"\s", rest, re.ASCII):  # libpq removes it at the end of some parts
            return True
    ports = str(parameters.get("port", "")).split(",")
    return ":" in str(parameters.get("user", "")) or not all(re.fullmatch("[0-9]{0,5}", port) for port in ports)
