"""Logs: one line on standard output for each event, of Accord and of libraries."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import BinaryIO, cast

import orjson
import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor

from accord_gateway.settings import Settings


def configure(settings: Settings) -> None:
    """Sets up structlog and the standard library's logging for this process."""
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    structlog.configure(
        processors=[_json] if settings.log_format == "json" else _console(),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=_writer(settings.log_format),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(handlers=[_Forward(structlog.get_logger())], level=max(level, logging.INFO), force=True)
    logging.captureWarnings(True)
    if settings.log_level != "debug":
        logging.getLogger("alembic.runtime").setLevel(logging.WARNING)  # logs each migration and each plugin it loads


def _writer(log_format: str) -> "structlog.BytesLoggerFactory | structlog.PrintLoggerFactory":
    if log_format == "json":
        return structlog.BytesLoggerFactory(cast(BinaryIO, sys.stdout.buffer))
    return structlog.PrintLoggerFactory(sys.stdout)


# Neither format shows the local variables of a traceback, as structlog does by default: they hold passwords and tokens.
def _json(logger: object, level: str, event: EventDict) -> bytes:
    """One processor, since structlog's chain of one per field costs more than validating a message."""
    event["level"], event["timestamp"] = level, datetime.now(UTC)
    if "exc_info" in event:
        event = structlog.processors.format_exc_info(logger, level, event)
    try:
        return orjson.dumps(event, default=str, option=orjson.OPT_UTC_Z)
    except TypeError:  # a lone surrogate, a large integer, or a key that is not text
        return json.dumps(event, default=str, skipkeys=True).encode()


def _console() -> list[Processor]:
    return [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty(), exception_formatter=structlog.dev.plain_traceback),
    ]


class _Forward(logging.Handler):
    """Forwards the standard library's log records to structlog."""

    def __init__(self, log: FilteringBoundLogger) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        self._log.log(record.levelno, record.getMessage(), logger=record.name, exc_info=record.exc_info)
