"""The gateway with one part of it exchanged: `python -m benchmarks.variants canned|uncached|unwalled`."""

import sys
from functools import partial

from accord_api import registration
from accord_api.handlers.tasks import TaskService
from accord_auth.sessions import Sessions
from accord_db.engine import database, transaction
from accord_gateway import lifecycle, startup
from accord_gateway.__main__ import main
from accord_gateway.server.gateway import gateway
from benchmarks.bare import Bare


class CannedTaskService(TaskService):
    """Answers GetTask without asking the database, as the bare server does."""

    GetTask = Bare.GetTask


def exchange(variant: str) -> None:
    if variant == "canned":
        registration.TaskService = CannedTaskService  # type: ignore[misc]
    elif variant == "uncached":  # every call asks the database for its session, as the peer's do
        gateway.Sessions = partial(Sessions, cache_seconds=0)  # type: ignore[assignment,misc]
    elif variant == "unwalled":  # as a superuser, whom no row-level security holds, and with no word of the tenant
        database.set_tenant_query = transaction.set_tenant_query = lambda tenant: ()  # type: ignore[attr-defined]  # as imported there
        startup.require_row_level_security = lambda addresses, settings: None
        lifecycle.gateway_role = lambda settings: None  # type: ignore[attr-defined]  # as imported there
    else:
        raise SystemExit(__doc__)


if __name__ == "__main__":
    exchange(sys.argv[1])
    sys.exit(main(["serve"]))
