"""Pages of a list and the tokens between them.

A page token is a HMAC over the caller, the list and the cursor, followed by the cursor. It holds nothing that its caller has
not read on the page before; the HMAC binds it to the list it was made for.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar
from uuid import UUID

import orjson
from google.protobuf.message import Message

from accord.errors.v1.errors_pb2 import Reason
from accord_db.engine.keyset import Cursor, Page
from accord_rpc.caller import caller
from accord_rpc.errors import RpcError

if TYPE_CHECKING:
    from google.protobuf.internal.containers import RepeatedCompositeFieldContainer

DEFAULT_PAGE_SIZE: Final = 50
NEWEST_FIRST: Final = "created_at desc"
_FULL_PAGE_BYTES: Final = 3 * 1024 * 1024  # by default clients refuse messages of more than 4 MiB
M = TypeVar("M", bound=Message)
R = TypeVar("R")

_SEAL_BYTES: Final = 16
_BETWEEN_PAGES: Final = frozenset({"page_token", "page_size", "include_total_size"})  # may differ from page to page


def _same(row: Any) -> Any:
    return row


@dataclass(frozen=True, slots=True)
class RequestedPage(Page):
    """The page that a List request specifies, and one row more: it shows whether there is a next page."""

    paginator: "Paginator | None" = None
    request: Message | None = None
    row_id: str = "id"

    def fill(
        self,
        messages: "RepeatedCompositeFieldContainer[M]",
        rows: Sequence[R],
        fill: Callable[[M, R], None],
        *,
        key: Callable[[R], Any] = _same,
    ) -> str:
        """Adds a message for each row of the page, up to 3 MiB. Returns the token of the next page, empty on the last.
        `key` returns the part of a row that has the id and the column of the order."""
        assert self.paginator is not None
        assert self.request is not None
        size = 0
        for row in rows[: self.limit - 1]:
            fill(message := messages.add(), row)
            if (size := size + message.ByteSize()) > _FULL_PAGE_BYTES:
                break
        if len(rows) == len(messages):
            return ""
        last = key(rows[len(messages) - 1])
        return self.paginator.token(self.request, Cursor(getattr(last, self.order_by), getattr(last, self.row_id)))


class Paginator:
    """Signs and verifies page tokens with a key that all processes of an installation share."""

    def __init__(self, key: bytes) -> None:
        self._key = hashlib.sha256(b"accord page tokens\0" + key).digest()

    def page(self, request: Any, *, order_by: str = NEWEST_FIRST, row_id: str = "id") -> RequestedPage:
        """Reads `page_size`, `page_token` and, where the request has it, `order_by` (`title`, `created_at desc`). The
        contract's rules limit the column to those of the list. `order_by` is the default; `row_id` the rows' id attribute.
        Raises PAGE_TOKEN_INVALID."""
        column, _, direction = (getattr(request, "order_by", "") or order_by).partition(" ")
        return RequestedPage(
            limit=(request.page_size or DEFAULT_PAGE_SIZE) + 1,
            after=self.cursor(request, request.page_token),
            order_by=column,
            descending=direction == "desc",
            paginator=self,
            request=request,
            row_id=row_id,
        )

    def token(self, request: Message, cursor: Cursor) -> str:
        body = orjson.dumps([isinstance(cursor.value, datetime), cursor.value, cursor.id])
        return base64.urlsafe_b64encode(self._seal(request, body) + body).rstrip(b"=").decode()

    def cursor(self, request: Message, token: str) -> Cursor | None:
        """Where the page begins; None for the first. Raises PAGE_TOKEN_INVALID."""
        if not token:
            return None
        try:
            raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raise RpcError(Reason.REASON_PAGE_TOKEN_INVALID) from None
        seal, body = raw[:_SEAL_BYTES], raw[_SEAL_BYTES:]
        if not hmac.compare_digest(seal, self._seal(request, body)):
            raise RpcError(Reason.REASON_PAGE_TOKEN_INVALID)
        is_time, value, row_id = orjson.loads(body)
        return Cursor(datetime.fromisoformat(value) if is_time else value, UUID(row_id))

    def _seal(self, request: Message, body: bytes) -> bytes:
        """Over all that determines the list: the caller, and the request without what may differ between pages."""
        same = type(request)()
        same.CopyFrom(request)
        for field in _BETWEEN_PAGES.intersection(type(request).DESCRIPTOR.fields_by_name):
            same.ClearField(field)
        me = caller()
        active = me.organization_id or me.account_id
        parts = [me.account_id.bytes, active.bytes, type(request).DESCRIPTOR.full_name.encode()]
        parts += [same.SerializeToString(deterministic=True), body]
        return hmac.digest(
            self._key,
            b"".join(len(part).to_bytes(4, "big") + part for part in parts),
            "sha256",
        )[:_SEAL_BYTES]
