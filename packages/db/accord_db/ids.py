from uuid import UUID

from uuid_utils import compat


def uuid7() -> UUID:
    """An id that sorts by the time it was made, to the millisecond (RFC 9562, section 5.7)."""
    return compat.uuid7()
