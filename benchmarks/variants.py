"""The gateway with one part of it exchanged: `python -m benchmarks.variants canned|uncached`."""

import sys
from functools import partial

from accord_api import router
from accord_api.handlers.tasks import TaskService
from accord_auth.sessions import Sessions
from accord_gateway import server
from accord_gateway.__main__ import main
from benchmarks.bare import Bare


class CannedTaskService(TaskService):
    """Answers GetTask without asking the database, as the bare server does."""

    GetTask = Bare.GetTask


def exchange(variant: str) -> None:
    if variant == "canned":
        router.TaskService = CannedTaskService  # type: ignore[misc]
    elif variant == "uncached":  # every call asks the database for its session, as the peer's do
        server.Sessions = partial(Sessions, cache_seconds=0)  # type: ignore[assignment,misc]
    else:
        raise SystemExit(__doc__)


if __name__ == "__main__":
    exchange(sys.argv[1])
    sys.exit(main(["serve"]))
