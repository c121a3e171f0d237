from datetime import UTC, datetime, timedelta
from uuid import UUID

from uuid_utils import compat

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_MILLISECOND = 2**48 - 1


def uuid7() -> UUID:
    """An id that sorts by its time of creation, in milliseconds (RFC 9562, section 5.7)."""
    return compat.uuid7()


def first_uuid7(time: datetime, offset: timedelta = timedelta()) -> UUID:
    """The smallest id of that time plus the offset: no id that is created then or later sorts before it."""
    milliseconds = (time - _EPOCH + offset) // timedelta(milliseconds=1)
    return UUID(int=min(max(milliseconds, 0), _LAST_MILLISECOND) << 80 | 0x7 << 76 | 0x2 << 62)
