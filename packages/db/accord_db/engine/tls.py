import psycopg
from psycopg.conninfo import conninfo_to_dict

_VERIFYING = ("verify-ca", "verify-full")


def require_verified_tls(dsn: str) -> str | None:
    """What is wrong with the way to the server, or None: over a network it has to prove that it is the one meant.

    libpq's default, sslmode=prefer, talks to anyone, and in the clear if asked to.
    """
    try:
        given = conninfo_to_dict(dsn)
    except psycopg.Error:
        return "it is not a connection string of PostgreSQL"
    if _is_local(given) or given.get("sslmode") in _VERIFYING:
        return None
    return "set sslmode=verify-full, and sslrootcert=… for your own CA"


def _is_local(given: dict[str, str | int | None]) -> bool:
    """Every host is a socket of this machine. Without a host libpq looks for one, and then for localhost."""
    hosts = str(given.get("host") or "").split(",")
    return not given.get("hostaddr") and all(host.startswith(("/", "@")) for host in hosts)
