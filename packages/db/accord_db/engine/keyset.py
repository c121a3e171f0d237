"""Where a page begins."""

from datetime import datetime
from typing import NamedTuple
from uuid import UUID


class Cursor(NamedTuple):
    """A place in a list: the row with this value in the column that the list is ordered by, and this id."""

    value: datetime | str
    id: UUID
