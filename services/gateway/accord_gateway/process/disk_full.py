"""Reports a full disk of the database, which otherwise shows only as the SQLSTATE of failed calls."""

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

_CHECK_SECONDS: Final = 1.0
_REPEAT_SECONDS: Final = 60.0


async def report_full_disk(failures: Callable[[], int]) -> None:
    """`failures` returns how many statements have failed for want of space. Logs at most one error a minute.

    Health stays SERVING: reads succeed, and every other gateway has the same disk."""
    log, reported = structlog.get_logger(), 0
    while True:
        await asyncio.sleep(_CHECK_SECONDS)
        if (failed := failures()) > reported:
            log.error(
                "database_disk_full",
                failed_statements=failed - reported,
                remedy="Free space on the disk of PostgreSQL, or enlarge it. Accord needs no restart.",
            )
            reported = failed
            await asyncio.sleep(_REPEAT_SECONDS)
