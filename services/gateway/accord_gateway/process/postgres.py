"""Supervises the embedded PostgreSQL in the process that started it, and logs its restarts."""

from collections.abc import Coroutine
from typing import Any

import structlog

from accord_postgres import EmbeddedPostgres, Ended, Restarted, RestartFailed


def postgres_tasks(postgres: EmbeddedPostgres | None) -> tuple[Coroutine[Any, Any, None], ...]:
    """The background task that supervises `postgres`. Empty if DATABASE_URL specifies another server."""
    return () if postgres is None else (_supervise(postgres),)


async def _supervise(postgres: EmbeddedPostgres) -> None:
    async for event in postgres.supervise():
        log = structlog.get_logger()  # a reload may have changed it
        match event:
            case Ended(status):
                log.error("postgres_ended", status=status, log_file=str(postgres.log_file))
            case RestartFailed(reason, seconds):
                log.error("postgres_not_restarted", reason=reason, retry_in_seconds=seconds)
            case Restarted(seconds):
                log.info("postgres_restarted", after_seconds=round(seconds, 2))
