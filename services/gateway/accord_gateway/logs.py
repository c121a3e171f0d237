"""Logs: one line on standard output for each event, of Accord and of libraries."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, Final

import orjson
import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor

from accord_gateway.log_lines import LogLines
from accord_gateway.settings import Settings

_JSON_LINE: Final = orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE


def configure(settings: Settings) -> None:
    """Sets up structlog and the standard library's logging for this process."""
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    if settings.log_format == "json":
        _configure_json(level)
    else:
        structlog.configure(
            processors=_console(),
            wrapper_class=structlog.make_filtering_bound_logger(level),
            logger_factory=structlog.PrintLoggerFactory(sys.stdout),
            cache_logger_on_first_use=True,
        )
    logging.basicConfig(handlers=[_Forward(structlog.get_logger())], level=max(level, logging.INFO), force=True)
    logging.captureWarnings(True)
    if settings.log_level != "debug":
        logging.getLogger("alembic.runtime").setLevel(logging.WARNING)  # logs each migration and each plugin it loads


# Neither format shows the local variables of a traceback, as structlog does by default: they hold passwords and tokens.
def _configure_json(level: int) -> None:
    """Without structlog's processors, whose chain costs more than validating a message."""
    lines = LogLines(sys.stdout.buffer)

    class JsonLogger(structlog.make_filtering_bound_logger(level)):  # type: ignore[misc]  # a class that it makes
        def _proxy_to_logger(self, method_name: str, event: str | None = None, **fields: Any) -> None:
            lines.add(_json(method_name, {**self._context, **fields, "event": event}))

    structlog.configure(wrapper_class=JsonLogger, cache_logger_on_first_use=True)


def _json(level: str, event: EventDict) -> bytes:
    event["level"], event["timestamp"] = level, datetime.now(UTC)
    if "exc_info" in event:
        event = structlog.processors.format_exc_info(None, level, event)
    try:
        return orjson.dumps(event, default=str, option=_JSON_LINE)
    except TypeError:  # a lone surrogate, a large integer, or a key that is not text
        return json.dumps(event, default=str, skipkeys=True).encode() + b"\n"


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
