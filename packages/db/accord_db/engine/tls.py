from typing import Any

from accord_db.engine.connection_string import parse
from accord_db.engine.errors import InvalidConnectionString

_VERIFYING = ("verify-ca", "verify-full")


def require_verified_tls(dsn: str) -> str | None:
    """The error message for a connection over a network that does not verify the server, or None. libpq's default,
    sslmode=prefer, connects to any server, and without TLS if the server has none."""
    try:
        given = parse(dsn)
    except InvalidConnectionString as error:
        return str(error)
    if _is_local(given) or given.get("sslmode") in _VERIFYING:
        return None
    return "set sslmode=verify-full, and sslrootcert=… for your own CA"


def _is_local(given: dict[str, Any]) -> bool:
    """Whether every host is a socket of this machine. Without a host, libpq chooses one."""
    hosts = str(given.get("host") or "").split(",")
    return not given.get("hostaddr") and all(host.startswith(("/", "@")) for host in hosts)
