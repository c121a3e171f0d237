"""One line for every event, ours and those of libraries, on standard output."""

import logging
import sys
from contextlib import suppress
from datetime import UTC, datetime
from typing import IO, Any, BinaryIO, TextIO, cast

import orjson
import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor

from accord_gateway.settings import Settings


def configure(settings: Settings) -> None:
    """Sets up structlog and the standard library's logging for the whole process."""
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    structlog.configure(
        processors=[_json] if settings.log_format == "json" else _console(),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=_writer(settings.log_format),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(handlers=[_Forward(structlog.get_logger())], level=max(level, logging.INFO), force=True)
    logging.captureWarnings(True)
    logging.getLogger("alembic.runtime.plugins").setLevel(logging.WARNING)  # tells each of its own parts it loads


def _writer(log_format: str) -> "structlog.BytesLoggerFactory | structlog.PrintLoggerFactory":
    if log_format == "json":
        return structlog.BytesLoggerFactory(cast(BinaryIO, _Undaunted(sys.stdout.buffer)))
    return structlog.PrintLoggerFactory(cast(TextIO, _Undaunted(sys.stdout)))


class _Undaunted:
    """Loses lines, and not calls, while the disk of the log is full or nobody reads it any more."""

    def __init__(self, stream: IO[Any]) -> None:
        self._stream = stream

    def write(self, text: str | bytes) -> None:
        with suppress(OSError):
            self._stream.write(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()


# Neither renders the local variables of a traceback, as structlog does by default: they hold passwords and tokens.
def _json(logger: object, level: str, event: EventDict) -> bytes:
    """All in one: structlog's own processors, one for each field, would cost a call more than its validation."""
    event["level"], event["timestamp"] = level, datetime.now(UTC)
    if "exc_info" in event:
        event = structlog.processors.format_exc_info(logger, level, event)
    return orjson.dumps(event, default=str, option=orjson.OPT_UTC_Z)


def _console() -> list[Processor]:
    return [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty(), exception_formatter=structlog.dev.plain_traceback),
    ]


class _Forward(logging.Handler):
    """Hands what libraries say through the standard library to structlog."""

    def __init__(self, log: FilteringBoundLogger) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        self._log.log(record.levelno, record.getMessage(), logger=record.name, exc_info=record.exc_info)
