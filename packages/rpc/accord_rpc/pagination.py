"""Page tokens: where the next page begins, sealed so that they fit only the list they were made for.

A token is a HMAC over the caller, the list and the place, and the place itself. It is no secret: it holds what its
caller has read on the page before.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final, TypeVar
from uuid import UUID

import orjson
from google.protobuf.message import Message

from accord.errors.v1.errors_pb2 import Reason
from accord_db.engine.keyset import Cursor
from accord_rpc.caller import caller
from accord_rpc.errors import RpcError

if TYPE_CHECKING:
    from google.protobuf.internal.containers import RepeatedCompositeFieldContainer

DEFAULT_PAGE_SIZE: Final = 50
_FULL_PAGE_BYTES: Final = 3 * 1024 * 1024  # clients refuse messages of more than 4 MiB unless they are told otherwise
M = TypeVar("M", bound=Message)
R = TypeVar("R")

_SEAL_BYTES: Final = 16
_BETWEEN_PAGES: Final = frozenset({"page_token", "page_size", "include_total_size"})  # these may change


def fill_page(
    messages: "RepeatedCompositeFieldContainer[M]", rows: Sequence[R], page_size: int, tell: Callable[[M, R], None]
) -> R | None:
    """Tells of `page_size` of the rows, or of as many as an answer may be large. The last of them if there is a next page:
    to tell that, one row more than the page has is asked for."""
    size = 0
    for row in rows[:page_size]:
        tell(message := messages.add(), row)
        if (size := size + message.ByteSize()) > _FULL_PAGE_BYTES:
            break
    return rows[len(messages) - 1] if len(rows) > len(messages) else None


class Paginator:
    """Seals and opens page tokens with a key that all processes of an installation share."""

    def __init__(self, key: bytes) -> None:
        self._key = hashlib.sha256(b"accord page tokens\0" + key).digest()

    def token(self, request: Message, place: Cursor) -> str:
        body = orjson.dumps([place.value, place.id])
        return base64.urlsafe_b64encode(self._seal(request, body) + body).rstrip(b"=").decode()

    def place(self, request: Message, token: str, *, times: bool) -> Cursor | None:
        """Where the page begins that `token` asks for; None for the first. `times` if the list's order is by time."""
        if not token:
            return None
        try:
            raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raise RpcError(Reason.REASON_PAGE_TOKEN_INVALID) from None
        seal, body = raw[:_SEAL_BYTES], raw[_SEAL_BYTES:]
        if not hmac.compare_digest(seal, self._seal(request, body)):
            raise RpcError(Reason.REASON_PAGE_TOKEN_INVALID)
        value, row_id = orjson.loads(body)
        return Cursor(datetime.fromisoformat(value) if times else value, UUID(row_id))

    def _seal(self, request: Message, body: bytes) -> bytes:
        """Over everything that makes the list: the caller, and the request but for what may change between pages."""
        same = type(request)()
        same.CopyFrom(request)
        for field in _BETWEEN_PAGES.intersection(type(request).DESCRIPTOR.fields_by_name):
            same.ClearField(field)
        me = caller()
        what = [me.account_id.bytes, me.owner_id.bytes, type(request).DESCRIPTOR.full_name.encode()]
        what += [same.SerializeToString(deterministic=True), body]
        return hmac.digest(
            self._key,
            b"".join(len(part).to_bytes(4, "big") + part for part in what),
            "sha256",
        )[:_SEAL_BYTES]
