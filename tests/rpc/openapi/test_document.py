"""The OpenAPI document that `make stubs` generates from the contract."""

import json
from importlib.resources import files
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict
from google.protobuf.message_factory import GetMessageClass
from protovalidate import Validator

from accord.policy.v1.policy_pb2 import ACCESS_PUBLIC
from accord_rpc.contract import contract_services
from accord_rpc.openapi.document import render
from accord_rpc.openapi.responses import reasons_of, statuses
from accord_rpc.policy import effective_policy
from accord_rpc.protocols.rest.http_rules import HttpRule, http_rules
from accord_rpc.reasons import REASONS, answer_of, reason_name

pytestmark = pytest.mark.every_feature

DOCUMENT: dict[str, Any] = json.loads((files("accord") / "openapi.json").read_text())
RULES = [rule for service in contract_services() for method in service.methods for rule in http_rules(method)]


def operation(method: str, path: str) -> Any:
    return DOCUMENT["paths"][path][method]


def operation_of(rule: HttpRule) -> Any:
    return operation(rule.verb.lower(), rule.template.documented)


def resolved(value: Any) -> Any:
    while "$ref" in value:
        found: Any = DOCUMENT
        for step in value["$ref"].removeprefix("#/").split("/"):
            found = found[step]
        value = found
    return value


def reasons_in(operation: Any, status: int) -> set[str]:
    response = resolved(operation["responses"].get(str(status), {"content": {"application/json": {"examples": {}}}}))
    return set(response["content"]["application/json"]["examples"])


def parameters(operation: Any) -> dict[str, Any]:
    return {each["name"]: each for each in map(resolved, operation.get("parameters", ()))}


def test_document_has_one_operation_for_each_route() -> None:
    operations = [operation for path in DOCUMENT["paths"].values() for operation in path.values()]
    assert len(operations) == len(RULES) > 80
    assert len({each["operationId"] for each in operations}) == len(operations)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_every_error_of_a_method_is_documented_under_its_status(rule: HttpRule) -> None:
    documented, policy = operation_of(rule), effective_policy(rule.method)
    declared = [*policy.errors, *(reason for reason in reasons_of(rule.method, policy))]
    assert declared
    for reason in declared:
        for status in statuses(rule, reason):
            assert reason_name(reason) in reasons_in(documented, status)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_every_operation_is_described(rule: HttpRule) -> None:
    documented = operation_of(rule)
    assert documented["summary"]
    assert documented["description"].startswith(documented["summary"])
    assert [tag for tag in DOCUMENT["tags"] if tag["name"] in documented["tags"] and tag["description"]]
    assert all(parameter["description"] for parameter in parameters(documented).values())


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_only_public_methods_need_no_credential(rule: HttpRule) -> None:
    is_public = effective_policy(rule.method).access == ACCESS_PUBLIC
    assert (operation_of(rule)["security"] == []) == is_public


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_every_field_of_a_request_has_one_place(rule: HttpRule) -> None:
    """In the path, the query or the body."""
    documented, request = operation_of(rule), rule.method.input_type
    named = {name for name, each in parameters(documented).items() if each["in"] in ("path", "query")}
    if body := documented.get("requestBody"):
        schema = resolved(body["content"]["application/json"]["schema"])
        if rule.body == "*":
            named |= set(schema["properties"])
        else:
            named.add(request.fields_by_name[rule.body].json_name)
    expected = {field.json_name for field in request.fields}
    for variable in rule.template.variables:
        top = request.fields_by_name[variable.field.split(".")[0]]
        assert top.json_name in named or variable.field in named
        expected.discard(top.json_name)
    assert expected <= named


def test_every_reason_of_the_examples_is_of_the_contract() -> None:
    names = {reason_name(number): answer_of(number) for number in REASONS}
    examples = {name: each["value"] for name, each in DOCUMENT["components"]["examples"].items()}
    assert examples
    for name, status in examples.items():
        assert (status["code"], status["message"]) == (names[name].code, names[name].message)
        assert status["details"][0]["reason"] == name


def test_example_has_the_details_that_the_error_has() -> None:
    def details(name: str) -> list[str]:
        return [
            each["@type"].rpartition(".")[2] for each in DOCUMENT["components"]["examples"][name]["value"]["details"]
        ]

    assert details("TASK_NOT_FOUND") == ["ErrorInfo"]
    assert details("INVALID_MESSAGE") == ["ErrorInfo", "BadRequest"]
    assert details("RATE_LIMITED") == ["ErrorInfo", "RetryInfo", "QuotaFailure"]
    assert list(DOCUMENT["components"]["examples"]["TASK_NOT_FOUND"]["value"]["details"][0]["metadata"]) == ["task_id"]


def test_sign_in_is_public_and_hides_the_password() -> None:
    sign_in = operation("post", "/v1/sessions")
    body = resolved(sign_in["requestBody"]["content"]["application/json"]["schema"])
    assert sign_in["security"] == []
    assert body["required"] == ["email", "password"]
    assert body["properties"]["password"]["format"] == "password"
    assert "SIGN_IN_REFUSED" in reasons_in(sign_in, 401)


def test_policy_is_an_extension_and_a_sentence() -> None:
    get_task = operation("get", "/v1/tasks/{task_id}")
    assert get_task["x-policy"] == {
        "access": "signed_in",
        "credentials": ["session", "api_key", "service_token"],
        "permission": "tasks.read",
        "personal": True,
        "rateLimits": [{"count": 60000, "windowSeconds": 10, "key": "caller"}],
        "deadlineSeconds": {"default": 5.0, "max": 30.0},
        "idempotency": "no_side_effects",
    }
    assert get_task["description"].endswith(
        "Needs the permission `tasks.read` in the active organization, if one is active. Credentials: session, API key, "
        "service token. Rate limits: 60,000 calls in 10 s per caller. Deadline: 5 s, at most 30 s."
    )


@pytest.mark.parametrize("rule", [rule for rule in RULES if "requestBody" in operation_of(rule)], ids=str)
def test_example_of_a_body_is_accepted(rule: HttpRule) -> None:
    example = operation_of(rule)["requestBody"]["content"]["application/json"]["example"]
    request = GetMessageClass(rule.method.input_type)()
    document: Any = example if rule.body == "*" else {rule.body: example}
    for variable in rule.template.variables:
        *above, name = variable.field.split(".")
        (document[above[0]] if above else document)[name] = "0193a5b7-6f10-7c3e-9d5b-2f8a41c06e77"
    violations = Validator().collect_violations(ParseDict(document, request))
    assert [violation.proto.message for violation in violations] == []


def test_create_takes_an_idempotency_key() -> None:
    create = operation("post", "/v1/tasks")
    assert list(parameters(create)) == ["Idempotency-Key"]
    assert "REQUEST_ID_REUSED" in reasons_in(create, 400)
    assert "Idempotency-Key" not in parameters(operation("patch", "/v1/tasks/{task_id}"))


def test_update_takes_the_version_and_returns_the_next_one() -> None:
    update = operation("patch", "/v1/tasks/{task_id}")
    assert set(parameters(update)) == {"task_id", "updateMask", "If-Match"}
    assert "ETag" in update["responses"]["200"]["headers"]
    assert "ETAG_MISMATCH" in reasons_in(update, 409) & reasons_in(update, 412)
    assert update["requestBody"]["content"]["application/json"]["schema"]["$ref"].endswith("/accord.tasks.v1.Task")


def test_get_can_name_the_version_that_the_client_has() -> None:
    assert "If-None-Match" in parameters(operation("get", "/v1/tasks/{task_id}"))
    assert "304" in operation("get", "/v1/tasks/{task_id}")["responses"]
    assert "304" not in operation("get", "/v1/tasks")["responses"]


def test_body_that_is_too_large_or_no_json_is_documented() -> None:
    create, listed = operation("post", "/v1/tasks"), operation("get", "/v1/tasks")
    assert reasons_in(create, 413) == reasons_in(create, 415) == {"INVALID_MESSAGE"}
    assert reasons_in(listed, 413) == set()


def test_list_has_its_filters_in_the_query() -> None:
    listed = parameters(operation("get", "/v1/tasks"))
    assert listed["pageSize"]["schema"] == {"type": "integer", "format": "int32", "minimum": 0, "maximum": 1000}
    assert listed["createdFrom"]["schema"] == {"type": "string", "format": "date-time"}
    assert all(each["in"] == "query" and "required" not in each for each in listed.values())


def test_method_whose_fields_are_all_in_the_path_has_no_body() -> None:
    assert "requestBody" not in operation("post", "/v1/tasks/{task_id}:undelete")


def test_fields_of_the_path_are_not_in_the_body() -> None:
    ban = operation("post", "/v1/admin/accounts/{account_id}:ban")
    properties = ban["requestBody"]["content"]["application/json"]["schema"]["properties"]
    assert "reason" in properties
    assert "accountId" not in properties


def test_retry_after_is_documented_where_errors_have_a_delay() -> None:
    poll = operation("post", "/v1/deviceSignIns:poll")
    for status in (400, 429, 503):
        assert "Retry-After" in resolved(poll["responses"][str(status)])["headers"]
    assert "headers" not in resolved(poll["responses"]["500"])


def test_one_of_several_proofs_is_required() -> None:
    complete = operation("post", "/v1/sessions:completeSignIn")
    schema = resolved(complete["requestBody"]["content"]["application/json"]["schema"])
    assert schema["allOf"] == [{"oneOf": [{"required": ["code"]}, {"required": ["recoveryCode"]}]}]


def test_cel_rules_are_shown() -> None:
    schema = DOCUMENT["components"]["schemas"]["accord.tasks.v1.BatchCreateTasksRequest"]
    assert [rule["id"] for rule in schema["properties"]["requests"]["x-cel"]] == ["requests.request_id.unset"]


def test_rendered_document_is_equal_and_has_one_line_for_a_short_object() -> None:
    document = {"a": {"b": [1, 2]}, "c": ["x" * 100, "y" * 100], "d": {}}
    assert json.loads(render(document)) == document
    assert '"a": {"b": [1, 2]},\n' in render(document)
    assert max(map(len, (files("accord") / "openapi.json").read_text().splitlines())) < 3000
