"""The errors of a method as responses: one for each HTTP status, with an example of each reason."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import Any, Final

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions
from google.rpc.status_pb2 import Status

from accord.errors.v1.errors_pb2 import Reason
from accord.policy.v1.policy_pb2 import ACCESS_PUBLIC, MethodPolicy
from accord_rpc.openapi.comments import Comments
from accord_rpc.openapi.schemas import Json
from accord_rpc.policy import REQUEST_ID
from accord_rpc.protocols.http_errors import PRECONDITION_FAILED, http_status
from accord_rpc.protocols.rest.headers import etag_fields
from accord_rpc.protocols.rest.http_rules import HttpRule
from accord_rpc.reasons import REASONS, AnyReason, answer_of, reason_name
from accord_rpc.status import DOMAIN

_TYPE: Final = "type.googleapis.com/google.rpc"
_METADATA: Final = re.compile(r"[Mm]etadata: `(\w+)`")
_AN_ID: Final = "0193a5b7-6f10-7c3e-9d5b-2f8a41c06e77"

STATUS_SCHEMA: Final[Json] = {
    "type": "object",
    "description": "The error of every failed call (google.rpc.Status).",
    "properties": {
        "code": {"type": "integer", "description": "The gRPC status code."},
        "message": {"type": "string", "description": "What failed and what the caller can do."},
        "details": {
            "type": "array",
            "description": "The first is an ErrorInfo, whose reason identifies the error.",
            "items": {"$ref": "#/components/schemas/ErrorDetail"},
        },
    },
    "required": ["code", "message", "details"],
}
DETAIL_SCHEMA: Final[Json] = {
    "type": "object",
    "description": "One of google/rpc/error_details.proto, which `@type` names.",
    "properties": {
        "@type": {"type": "string"},
        "reason": {"type": "string", "description": "Of an ErrorInfo: why the call failed."},
        "domain": {"type": "string", "description": f"Of an ErrorInfo: `{DOMAIN}`."},
        "metadata": {
            "type": "object",
            "description": "Of an ErrorInfo: ids and limits.",
            "additionalProperties": {"type": "string"},
        },
        "fieldViolations": {
            "type": "array",
            "description": "Of a BadRequest: every invalid field.",
            "items": {
                "type": "object",
                "properties": {
                    "field": {"type": "string", "description": "The path of the field."},
                    "description": {"type": "string", "description": "What the value must be."},
                },
            },
        },
        "retryDelay": {"type": "string", "description": "Of a RetryInfo: when to retry, as `1.5s`."},
        "violations": {
            "type": "array",
            "description": "Of a QuotaFailure: the subject of the rate limit.",
            "items": {
                "type": "object",
                "properties": {"subject": {"type": "string"}, "description": {"type": "string"}},
            },
        },
    },
    "required": ["@type"],
}


def _always(method: MethodDescriptor, policy: MethodPolicy) -> bool:
    return True


def _never(method: MethodDescriptor, policy: MethodPolicy) -> bool:
    return False


def _writes(method: MethodDescriptor, policy: MethodPolicy) -> bool:
    return method.GetOptions().idempotency_level != MethodOptions.NO_SIDE_EFFECTS


def _is_not_public(method: MethodDescriptor, policy: MethodPolicy) -> bool:
    return policy.access != ACCESS_PUBLIC


def _is_fresh(method: MethodDescriptor, policy: MethodPolicy) -> bool:
    return policy.fresh


def _refuses_before_password_change(method: MethodDescriptor, policy: MethodPolicy) -> bool:
    return _is_not_public(method, policy) and not policy.before_password_change


def _has_request_id(method: MethodDescriptor, policy: MethodPolicy) -> bool:
    return REQUEST_ID in method.input_type.fields_by_name


_APPLIES: Final[Mapping[int, Callable[[MethodDescriptor, MethodPolicy], bool]]] = {
    Reason.REASON_METHOD_UNKNOWN: _never,  # only for paths that the document does not have
    Reason.REASON_CANCELLED: _never,  # the client that cancelled receives nothing
    Reason.REASON_CONFLICT: _writes,
    Reason.REASON_REFERENCE_MISSING: _writes,
    Reason.REASON_ALREADY_EXISTS: _writes,
    Reason.REASON_CREDENTIAL_MISSING: _is_not_public,
    Reason.REASON_CREDENTIAL_INVALID: _is_not_public,
    Reason.REASON_PERMISSION_DENIED: _is_not_public,
    Reason.REASON_SIGN_IN_NOT_FRESH: _is_fresh,
    Reason.REASON_PASSWORD_CHANGE_REQUIRED: _refuses_before_password_change,
    Reason.REASON_REQUEST_ID_REUSED: _has_request_id,
}
"""When the pipeline returns a reason. Other reasons of the pipeline apply to every method."""


def reasons_of(method: MethodDescriptor, policy: MethodPolicy) -> list[AnyReason]:
    """Those that the policy declares and those of the pipeline, by number."""
    return [
        reason
        for reason in map(_reason, REASONS)
        if reason in policy.errors or (answer_of(reason).pipeline and _APPLIES.get(reason, _always)(method, policy))
    ]


def _reason(number: int) -> AnyReason:
    return Reason.ValueType(number)


class ErrorResponses:
    """Collects the responses and the examples that the document refers to. Most methods share most of their responses."""

    def __init__(self, comments: Comments) -> None:
        self._comments = comments
        self.responses: Json = {}
        self.examples: Json = {}

    def of(self, rule: HttpRule, reasons: Iterable[AnyReason]) -> Json:
        by_status: dict[int, list[AnyReason]] = defaultdict(list)
        for reason in reasons:
            for status in statuses(rule, reason):
                by_status[status].append(reason)
        return {str(status): self._ref(status, by_status[status]) for status in sorted(by_status)}

    def _ref(self, status: int, reasons: list[AnyReason]) -> Json:
        """Named after its reasons: `404.TASK_NOT_FOUND`."""
        name = ".".join((str(status), *map(reason_name, reasons)))
        if name not in self.responses:
            self.responses[name] = self._response(status, reasons)
        return {"$ref": f"#/components/responses/{name}"}

    def _response(self, status: int, reasons: list[AnyReason]) -> Json:
        lines = (f"- `{reason_name(reason)}`: {_as_markdown(answer_of(reason).message)}" for reason in reasons)
        examples = {reason_name(reason): self._example(reason) for reason in reasons}
        schema = {"$ref": "#/components/schemas/google.rpc.Status"}
        response: Json = {
            "description": "\n".join((f"{HTTPStatus(status).phrase}:\n", *lines)),
            "content": {"application/json": {"schema": schema, "examples": examples}},
        }
        if headers := dict(self._headers(status, reasons)):
            response["headers"] = headers
        return response

    def _headers(self, status: int, reasons: Iterable[AnyReason]) -> Iterator[tuple[str, Json]]:
        if status == HTTPStatus.UNAUTHORIZED:
            yield "WWW-Authenticate", {"$ref": "#/components/headers/WWW-Authenticate"}
        if any("RetryInfo" in self._comment(reason) for reason in reasons):
            yield "Retry-After", {"$ref": "#/components/headers/Retry-After"}

    def _example(self, reason: AnyReason) -> Json:
        name, answer = reason_name(reason), answer_of(reason)
        details = [_error_info(name, self._comment(reason)), *_other_details(self._comment(reason))]
        self.examples[name] = {"value": {"code": answer.code, "message": answer.message, "details": details}}
        return {"$ref": f"#/components/examples/{name}"}

    def _comment(self, reason: AnyReason) -> str:
        value = REASONS[reason]
        return self._comments.of(f"{value.type.full_name}.{value.name}")


def statuses(rule: HttpRule, reason: AnyReason) -> list[int]:
    """The HTTP statuses of a reason."""
    usual = http_status(Status(code=answer_of(reason).code))
    if reason == Reason.REASON_ETAG_MISMATCH and takes_etag(rule):
        return [usual, PRECONDITION_FAILED]
    if reason == Reason.REASON_INVALID_MESSAGE and rule.body:
        return [usual, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNSUPPORTED_MEDIA_TYPE]
    return [usual]


def takes_etag(rule: HttpRule) -> bool:
    """Whether the request can name the version to change, and so has the header If-Match."""
    return next(etag_fields(rule), None) is not None


def _as_markdown(text: str) -> str:
    return text.replace("<", "&lt;")


def _error_info(name: str, comment: str) -> Json:
    metadata = dict.fromkeys(_METADATA.findall(comment), _AN_ID)
    return {"@type": f"{_TYPE}.ErrorInfo", "reason": name, "domain": DOMAIN, "metadata": metadata}


def _other_details(comment: str) -> Iterator[dict[str, Any]]:
    """The comment of a reason names the details that its errors have."""
    if "BadRequest" in comment:
        violation = {"field": "page_size", "description": "must be less than or equal to 1000"}
        yield {"@type": f"{_TYPE}.BadRequest", "fieldViolations": [violation]}
    if "RetryInfo" in comment:
        yield {"@type": f"{_TYPE}.RetryInfo", "retryDelay": "1s"}
    if "QuotaFailure" in comment:
        violation = {"subject": "caller", "description": "Too many calls."}
        yield {"@type": f"{_TYPE}.QuotaFailure", "violations": [violation]}
