"""The gateway with one part replaced: `python -m benchmarks.variants canned|uncached|no-row-level-security`."""

import sys
from functools import partial

from accord_api import registration
from accord_api.handlers.tasks import TaskService
from accord_auth.sessions import Sessions
from accord_db.engine import database, transaction
from accord_gateway import lifecycle, startup
from accord_gateway.__main__ import main
from accord_gateway.server import gateway
from benchmarks.bare import Bare


class CannedTaskService(TaskService):
    """Returns GetTask's response without a query, as the bare server does."""

    GetTask = Bare.GetTask


def exchange(variant: str) -> None:
    if variant == "canned":
        registration.SERVICES = tuple(  # type: ignore[misc]  # Final there
            CannedTaskService if service is TaskService else service for service in registration.SERVICES
        )
    elif variant == "uncached":  # every call looks up its session, as the peer's do
        gateway.Sessions = partial(Sessions, cache_seconds=0)  # type: ignore[assignment,misc]  # a function in place of a class
    elif variant == "no-row-level-security":  # as a superuser, and without setting the tenant
        database.set_tenant_query = transaction.set_tenant_query = lambda tenant: ()  # type: ignore[attr-defined]  # imported there, not exported
        startup.require_row_level_security = lambda addresses, settings: None
        lifecycle.gateway_role = lambda settings: None  # type: ignore[attr-defined]  # imported there, not exported
    else:
        raise SystemExit(__doc__)


if __name__ == "__main__":
    exchange(sys.argv[1])
    sys.exit(main(["serve"]))
