from datetime import UTC, datetime, timedelta
from uuid import UUID

from uuid_utils import compat

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_MILLISECOND = 2**48 - 1
_RANDOM = 2**80 - 1  # with the version and the variant


def uuid7() -> UUID:
    """An id that sorts by its time of creation, in milliseconds (RFC 9562, section 5.7)."""
    return compat.uuid7()


def uuid7_at(time: datetime) -> UUID:
    """As `uuid7`, with this time instead of the process's: for ids that are compared with times of the database."""
    return UUID(int=_milliseconds(time - _EPOCH) << 80 | uuid7().int & _RANDOM)


def first_uuid7(time: datetime, offset: timedelta = timedelta()) -> UUID:
    """The smallest id of that time plus the offset: no id that is created then or later sorts before it."""
    return UUID(int=_milliseconds(time - _EPOCH + offset) << 80 | 0x7 << 76 | 0x2 << 62)


def _milliseconds(since_epoch: timedelta) -> int:
    return min(max(since_epoch // timedelta(milliseconds=1), 0), _LAST_MILLISECOND)
