"""The OpenAPI document of the contract."""

import json
from collections.abc import Iterable, Iterator
from typing import Final

from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from accord_rpc.openapi.comments import Comments
from accord_rpc.openapi.operations import Operations
from accord_rpc.openapi.responses import DETAIL_SCHEMA, STATUS_SCHEMA, ErrorResponses
from accord_rpc.openapi.schemas import Json, Schemas

_LONGEST_LINE: Final = 140

_INTRODUCTION: Final = """\
The HTTP and JSON interface. The same methods are also served as gRPC, gRPC-Web and Connect, on the same port.

- **Credentials**: send `Authorization: Bearer <token>`. `AccountService_SignIn` returns the token of a session.
- **Names**: fields have their JSON names (`pageSize`); the names of the contract (`page_size`) are accepted too. Unknown \
fields and parameters are refused. An empty text is an unset field.
- **Errors** are a `google.rpc.Status`. Decide by the `reason` of the ErrorInfo in its `details`, never by the message.
- **Versions**: resources have an `etag`, also as the header `ETag`. `If-Match` updates only that version.
- **Retries**: send an `Idempotency-Key` where it is listed, and the same one with each retry.
- **Deadlines**: `Grpc-Timeout: 5S` limits the time of a call. Each operation lists its default and its maximum."""

_SECURITY_SCHEMES: Final[Json] = {
    "session": {
        "type": "http",
        "scheme": "bearer",
        "description": "The token of a session, which a sign-in returns. With SESSION_COOKIES browsers send the cookie "
        "`__Host-session` instead.",
    },
    "api_key": {"type": "http", "scheme": "bearer", "description": "An API key of an organization."},
    "service_token": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "A short-lived token of a service.",
    },
    "client_certificate": {"type": "mutualTLS", "description": "The certificate of a service."},
}
_HEADERS: Final[Json] = {
    "X-Request-Id": {"description": "Identifies the call in the logs.", "schema": {"type": "string"}},
    "ETag": {"description": "The version of the resource, for `If-Match`.", "schema": {"type": "string"}},
    "Retry-After": {"description": "The seconds to wait before a retry.", "schema": {"type": "integer", "minimum": 1}},
    "WWW-Authenticate": {"description": "The accepted scheme: `Bearer`.", "schema": {"type": "string"}},
}
_NOT_MODIFIED: Final[Json] = {
    "description": "The resource is the version of `If-None-Match`.",
    "headers": {"ETag": {"$ref": "#/components/headers/ETag"}},
}
_TOO_LONG: Final[Json] = {
    "description": "The query is too long for the limit of headers. Send fewer values, or call the method by Connect or gRPC."
}
_PARAMETERS: Final[Json] = {
    "Idempotency-Key": {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "The `requestId`: a UUID that the client generates. A repeated call with the same one returns the "
        "first response again.",
        "schema": {"type": "string", "format": "uuid"},
    },
    "If-None-Match": {
        "name": "If-None-Match",
        "in": "header",
        "description": "The `etag` in quotes, of a version that the client has already.",
        "schema": {"type": "string"},
    },
    "If-Match": {
        "name": "If-Match",
        "in": "header",
        "description": "The `etag` in quotes: the only version that the call may change.",
        "schema": {"type": "string", "pattern": '^"[^"]+"$'},
    },
}


def openapi(services: Iterable[ServiceDescriptor], image: FileDescriptorSet) -> Json:
    """`image` is the contract compiled with its comments."""
    comments, services = Comments(image), list(services)
    methods = [method for service in services for method in service.methods if not method.client_streaming]
    schemas = Schemas(comments, (each.input_type for each in methods), (each.output_type for each in methods))
    schemas.components |= {"google.rpc.Status": STATUS_SCHEMA, "ErrorDetail": DETAIL_SCHEMA}
    errors = ErrorResponses(comments)
    operations = Operations(comments, schemas, errors)
    paths: Json = {}
    for rule, operation in (each for method in methods for each in operations.of(method)):
        paths.setdefault(rule.template.documented, {})[rule.verb.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": "Accord", "version": "v1", "description": _INTRODUCTION},
        "servers": [{"url": "/"}],
        "tags": [{"name": each.name, "description": comments.of(each.full_name)} for each in services],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(schemas.components.items())),
            "parameters": _PARAMETERS,
            "headers": _HEADERS,
            "responses": {"304": _NOT_MODIFIED, "414": _TOO_LONG, **dict(sorted(errors.responses.items()))},
            "examples": dict(sorted(errors.examples.items())),
            "securitySchemes": _SECURITY_SCHEMES,
        },
    }


def render(document: Json) -> str:
    """Short objects are on one line, so that the file is compact and its diffs are readable."""
    return "".join(_lines(document, "")) + "\n"


def _lines(value: object, indent: str) -> Iterator[str]:
    line = json.dumps(value, ensure_ascii=False)
    if not value or not isinstance(value, dict | list) or len(indent) + len(line) <= _LONGEST_LINE:
        yield line
        return
    inner, brackets = indent + " ", "{}" if isinstance(value, dict) else "[]"
    entries = (
        [(f"{json.dumps(key)}: ", each) for key, each in value.items()]
        if isinstance(value, dict)
        else [("", each) for each in value]
    )
    yield brackets[0]
    for number, (key, each) in enumerate(entries):
        yield f"{',' if number else ''}\n{inner}{key}"
        yield from _lines(each, inner)
    yield f"\n{indent}{brackets[1]}"
