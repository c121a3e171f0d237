"""libpq's environment variables, and which of them take part in connections.

libpq fills in what a connection string omits from its environment. Accord lets the environment supply credentials, TLS material
and timeouts, but not the server: PGHOSTADDR, PGPORT or PGSERVICE, set for another purpose, would send accounts to another one.
"""

from collections.abc import MutableMapping

from psycopg import pq

# A parameter that a later libpq adds is ignored until it is listed here.
_FROM_ENVIRONMENT = (
    *("user", "password", "passfile", "require_auth", "channel_binding", "requirepeer", "krbsrvname", "gsslib"),
    *("gssencmode", "gssdelegation", "sslmode", "sslnegotiation", "sslcompression", "sslcert", "sslkey", "sslcertmode"),
    *("sslrootcert", "sslcrl", "sslcrldir", "sslsni", "ssl_min_protocol_version", "ssl_max_protocol_version"),
    *("min_protocol_version", "max_protocol_version", "connect_timeout", "application_name"),
)
# Variables without a parameter. Service files are used only if the connection string itself names a service.
_SESSION = ("PGDATESTYLE", "PGTZ", "PGGEQO")
_SERVICE_FILES_AND_TLS = ("PGSERVICEFILE", "PGSYSCONFDIR", "PGREQUIRESSL")


def drop_ignored_variables(environment: MutableMapping[str, str], *, embedded: bool) -> list[str]:
    """Removes them and returns those that were set. libpq has no parameter that overrides PGSERVICE or PGTZ."""
    dropped = [name for name in ignored_variables(embedded=embedded) if name in environment]
    for name in dropped:
        del environment[name]
    return dropped


def ignored_variables(*, embedded: bool) -> list[str]:
    """The names of variables that must not take part in connections. In those to the embedded server, none may."""
    variables = {
        option.keyword.decode(): option.envvar.decode() for option in pq.Conninfo.get_defaults() if option.envvar
    }
    if embedded:
        return [*variables.values(), *_SESSION, *_SERVICE_FILES_AND_TLS]
    return [*(name for parameter, name in variables.items() if parameter not in _FROM_ENVIRONMENT), *_SESSION]
