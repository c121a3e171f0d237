from datetime import UTC, datetime, timedelta
from uuid import UUID

from uuid_utils import compat

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_MILLISECOND = 2**48 - 1
_RANDOM = 2**80 - 1  # with the version and the variant


def uuid7() -> UUID:
    """An id that sorts by the time it was made, to the millisecond (RFC 9562, section 5.7)."""
    return compat.uuid7()


def uuid7_at(time: datetime) -> UUID:
    """As `uuid7`, with this time in place of the process's: for ids that are compared with times of the database."""
    return UUID(int=_milliseconds(time) << 80 | uuid7().int & _RANDOM)


def first_uuid7(time: datetime, moved_by: timedelta = timedelta()) -> UUID:
    """No id that is made at this time, or later, sorts before it. The time is moved first, by as much as is said."""
    return UUID(int=_milliseconds(time + moved_by) << 80 | 0x7 << 76 | 0x2 << 62)


def _milliseconds(time: datetime) -> int:
    return min(max((time - _EPOCH) // timedelta(milliseconds=1), 0), _LAST_MILLISECOND)
