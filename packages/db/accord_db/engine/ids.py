from datetime import UTC, datetime, timedelta
from uuid import UUID

from uuid_utils import compat

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_MILLISECOND = 2**48 - 1


def uuid7() -> UUID:
    """An id that sorts by the time it was made, to the millisecond (RFC 9562, section 5.7)."""
    return compat.uuid7()


def first_uuid7(time: datetime, moved_by: timedelta = timedelta()) -> UUID:
    """No id that is made at this time, or later, sorts before it. The time is moved first, by as much as is said."""
    milliseconds = (time - _EPOCH + moved_by) // timedelta(milliseconds=1)
    return UUID(int=min(max(milliseconds, 0), _LAST_MILLISECOND) << 80 | 0x7 << 76 | 0x2 << 62)
