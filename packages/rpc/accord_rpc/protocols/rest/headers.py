"""The headers of a REST request: preconditions, retries and the deadline, as fields and as what the client must correct."""

import re
from collections.abc import Iterator
from typing import Final
from uuid import UUID

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from accord_rpc.errors import FieldViolation
from accord_rpc.protocols.context import MILLISECONDS, SECONDS_OF_UNIT
from accord_rpc.protocols.rest.binding import HeaderValue
from accord_rpc.protocols.rest.http_rules import WHOLE, HttpRule

ETAG: Final = "etag"
_STRONG_ETAG: Final = re.compile(r'"([^"]+)"')
_KEY: Final = re.compile(r'"?([0-9a-fA-F-]{36})"?')
_TIMEOUT: Final = re.compile(rb"([0-9]{1,8})([HMSmun])")


class HeaderError(ValueError):
    """A header that the client must correct."""


class RequestFields:
    """The fields of one rule's request that headers set: the etag, and the `request_id`."""

    def __init__(self, rule: HttpRule) -> None:
        request = rule.method.input_type
        self._etag = next(etag_fields(rule), None)
        self._request_id = "request_id" if "request_id" in request.fields_by_name else None
        # Repeating such a call has no effect, so a key for it can be ignored.
        self._repeatable = rule.method.GetOptions().idempotency_level != 0

    def if_match(self, value: str) -> HeaderValue:
        if self._etag is None:
            raise HeaderError("is not supported by this method")
        if (etag := _STRONG_ETAG.fullmatch(value.strip())) is None:
            raise HeaderError('must be one strong entity tag, for example "0198f7f0-0000-7000-8000-000000000000"')
        return HeaderValue("if-match", self._etag, etag[1])

    def idempotency_key(self, value: str) -> HeaderValue | None:
        key = _KEY.fullmatch(value.strip())
        try:
            request_id = str(UUID(key[1])) if key else None
        except ValueError:
            request_id = None
        if request_id is None:
            raise HeaderError("must be a UUID")
        if self._request_id is None:
            if self._repeatable:
                return None
            raise HeaderError("is not supported by this method: a repeated call could take effect twice")
        return HeaderValue("idempotency-key", self._request_id, request_id)


def seconds_left(header: bytes, value: bytes) -> float:
    """The time that a call may take, from `grpc-timeout` or `connect-timeout-ms`. Raises HeaderError."""
    if header == b"connect-timeout-ms":
        if not MILLISECONDS.fullmatch(value):
            raise HeaderError("must be a number of milliseconds, of at most 10 digits")
        return int(value) / 1000
    if (found := _TIMEOUT.fullmatch(value)) is None:
        raise HeaderError("must be a number of at most 8 digits and a unit of H, M, S, m, u, n")
    return int(found[1]) * SECONDS_OF_UNIT[found[2]]


def problem(header: bytes, error: HeaderError) -> FieldViolation:
    return FieldViolation(header.decode("ascii"), str(error))


def etag_path(message: Descriptor) -> str | None:
    """The etag of the one resource in a response; None if it has none or several."""
    if _is_etag(message.fields_by_name.get(ETAG)):
        return ETAG
    singular = [field for field in message.fields if field.message_type is not None and not field.is_repeated]
    with_etag = [field for field in singular if _has_etag(field)]
    return f"{with_etag[0].name}.{ETAG}" if len(with_etag) == 1 else None


def etag_fields(rule: HttpRule) -> Iterator[str]:
    """The field that states the version to change: of the request, or of the resource in its body."""
    request = rule.method.input_type
    if _is_etag(request.fields_by_name.get(ETAG)):
        yield ETAG
    if rule.body and rule.body != WHOLE and _has_etag(request.fields_by_name[rule.body]):
        yield f"{rule.body}.{ETAG}"


def _has_etag(field: FieldDescriptor) -> bool:
    return field.message_type is not None and _is_etag(field.message_type.fields_by_name.get(ETAG))


def _is_etag(field: FieldDescriptor | None) -> bool:
    return field is not None and field.type == FieldDescriptor.TYPE_STRING and not field.is_repeated
