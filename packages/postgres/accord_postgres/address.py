"""The connection string of the embedded server.

libpq takes parameters that a connection string omits from environment variables (PGHOSTADDR, PGOPTIONS, …) and from the service
file that PGSERVICE selects. This one therefore states every parameter, so that clients always connect to this server.
"""

from pathlib import Path
from urllib.parse import quote, urlencode

from psycopg import pq

# These have no built-in default, and an empty value is an error.
_NEUTRAL = {
    "connect_timeout": "10",
    "sslcertmode": "allow",
    "min_protocol_version": "3.0",
    "max_protocol_version": "3.0",
    "client_encoding": "UTF8",
}
# An empty `service` is an error too. `application_name` does not affect the server, and each client sets its own.
_OMITTED = ("service", "application_name")
# Has no variable, but a service file can set it.
_ONLY_IN_SERVICE_FILES = ("replication",)


def address(*, sockets: Path, port: int, user: str, database: str, writable: bool = True) -> str:
    """With `writable`, connecting fails while the server is read-only."""
    own = {
        "host": str(sockets),
        "port": str(port),
        "passfile": str(sockets / "no_password_file"),
        "target_session_attrs": "read-write" if writable else "any",
    }
    parameters = {name: value for name, value in _defaults().items() if name not in ("user", "dbname")} | own
    return f"postgresql://{user}@/{database}?{urlencode(parameters, quote_via=quote, safe='/')}"


def _defaults() -> dict[str, str]:
    """A value without effect for each parameter that the environment or a service file could set."""
    options = {option.keyword.decode(): option for option in pq.Conninfo.get_defaults()}
    return {
        name: _NEUTRAL.get(name, (option.compiled or b"").decode())
        for name, option in options.items()
        if (option.envvar or name in _ONLY_IN_SERVICE_FILES) and name not in _OMITTED
    }
