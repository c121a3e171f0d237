"""Methods as operations: parameters, body, security and responses."""

from collections.abc import Iterator
from typing import Final

from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor

from accord.policy.v1.policy_pb2 import Credential, MethodPolicy
from accord_rpc.openapi.comments import Comments
from accord_rpc.openapi.policies import accepted_credentials, policy_object, policy_text
from accord_rpc.openapi.responses import ErrorResponses, reasons_of, takes_etag
from accord_rpc.openapi.schemas import Json, Schemas
from accord_rpc.policy import REQUEST_ID, effective_policy
from accord_rpc.protocols.rest.headers import etag_path
from accord_rpc.protocols.rest.http_rules import WHOLE, HttpRule, field_at, http_rule_problems, http_rules, query_fields
from accord_rpc.protocols.rest.path_templates import parameter_name

_SECURITY: Final = {
    Credential.CREDENTIAL_SESSION: "session",
    Credential.CREDENTIAL_API_KEY: "api_key",
    Credential.CREDENTIAL_SERVICE_TOKEN: "service_token",
    Credential.CREDENTIAL_CLIENT_CERTIFICATE: "client_certificate",
}


class Operations:
    def __init__(self, comments: Comments, schemas: Schemas, errors: ErrorResponses) -> None:
        self._comments = comments
        self._schemas = schemas
        self._errors = errors

    def of(self, method: MethodDescriptor) -> Iterator[tuple[HttpRule, Json]]:
        """No operation if its routes are wrong: `make lint` and the start report those."""
        rules = [] if http_rule_problems([method]) else http_rules(method)
        for number, rule in enumerate(rules, 1):
            yield rule, self._operation(rule, number, effective_policy(method))

    def _operation(self, rule: HttpRule, number: int, policy: MethodPolicy) -> Json:
        method, options = rule.method, rule.method.GetOptions()
        comment, service = self._comments.of(method.full_name), method.containing_service.name
        operation: Json = {
            "operationId": f"{service}_{method.name}" + (f"_{number}" if number > 1 else ""),
            "tags": [service],
            "summary": comment.split(". ")[0].split("\n")[0].rstrip("."),
            "description": f"{comment}\n\n{policy_text(policy)}",
            "security": [{_SECURITY[kind]: []} for kind in accepted_credentials(policy)],
        }
        if parameters := list(self._parameters(rule)):
            operation["parameters"] = parameters
        if body := self._body(rule):
            operation["requestBody"] = body
        errors = self._errors.of(rule, reasons_of(method, policy))
        operation["responses"] = {"200": self._success(rule), **_not_modified(rule), **errors, **_too_long(rule)}
        if options.deprecated:
            operation["deprecated"] = True
        return operation | {"x-policy": policy_object(policy, options)}

    def _parameters(self, rule: HttpRule) -> Iterator[Json]:
        for variable in rule.template.variables:
            if fields := field_at(rule.method.input_type, variable.field):
                yield self._parameter(parameter_name(variable.field), "path", fields[-1], required=True)
        required = self._schemas.required(rule.method.input_type)
        for leaf in query_fields(rule):
            yield self._parameter(leaf.json_path, "query", leaf.fields[-1], required=leaf.path in required)
        if REQUEST_ID in rule.method.input_type.fields_by_name:
            yield {"$ref": "#/components/parameters/Idempotency-Key"}
        if takes_etag(rule):
            yield {"$ref": "#/components/parameters/If-Match"}
        if _not_modified(rule):
            yield {"$ref": "#/components/parameters/If-None-Match"}

    def _parameter(self, name: str, place: str, field: FieldDescriptor, *, required: bool) -> Json:
        schema = self._schemas.field(field)
        for keyword in ("readOnly", "examples"):  # Swagger UI would send the example
            schema.pop(keyword, None)
        parameter: Json = {"name": name, "in": place, "description": schema.pop("description", "")}
        return parameter | ({"required": True} if required else {}) | {"schema": schema}

    def _body(self, rule: HttpRule) -> Json | None:
        """None if the request has no fields besides those of the path."""
        request = rule.method.input_type
        if not rule.body:
            return None
        in_path = {variable.field for variable in rule.template.variables}
        if rule.body != WHOLE:
            field = request.fields_by_name[rule.body]
            assert field.message_type is not None
            inner = {name.removeprefix(f"{field.name}.") for name in in_path}
            example = self._schemas.example(field.message_type, inner)
            return _json(self._schemas.field(field), example, required=True)
        fields = [field.name for field in request.fields if field.name not in in_path]
        if not fields:
            return None
        schema = self._schemas.message(request, without=in_path) if in_path else self._schemas.ref(request)
        example = self._schemas.example(request, in_path)
        return _json(schema, example, required=bool(self._schemas.required(request).intersection(fields)))

    def _success(self, rule: HttpRule) -> Json:
        method = rule.method
        result = method.output_type.fields_by_name.get(rule.response_body)
        schema = self._schemas.field(result) if result else self._schemas.ref(method.output_type)
        headers = {"X-Request-Id": {"$ref": "#/components/headers/X-Request-Id"}}
        if _returns_etag(method):
            headers["ETag"] = {"$ref": "#/components/headers/ETag"}
        kinds = ("application/x-ndjson", "text/event-stream") if method.server_streaming else ("application/json",)
        description = self._comments.of(method.output_type.full_name)
        return {"description": description, "headers": headers, "content": {kind: {"schema": schema} for kind in kinds}}


def _json(schema: Json, example: Json, *, required: bool) -> Json:
    return {"required": required, "content": {"application/json": {"schema": schema, "example": example}}}


def _returns_etag(method: MethodDescriptor) -> bool:
    return not method.server_streaming and etag_path(method.output_type) is not None


def _not_modified(rule: HttpRule) -> Json:
    """The response to a version that the client has already (RFC 9110, section 13.1.2)."""
    is_conditional = rule.verb == "GET" and _returns_etag(rule.method)
    return {"304": {"$ref": "#/components/responses/304"}} if is_conditional else {}


def _too_long(rule: HttpRule) -> Json:
    """The response to a query that the server does not read: a list can be longer than its headers may be."""
    has_list = any(leaf.fields[-1].is_repeated for leaf in query_fields(rule))
    return {"414": {"$ref": "#/components/responses/414"}} if has_list else {}
