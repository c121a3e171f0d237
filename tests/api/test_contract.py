"""Contracts with which the gateway refuses to start. Each test builds a contract with one fault."""

from collections.abc import Sequence
from dataclasses import fields
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import EnumDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc.code_pb2 import Code
from protovalidate import Validator
from sqlalchemy import Boolean, Column, DateTime, Enum, Interval, String, Table, Uuid
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, mapped_column

from accord.accounts.v1 import accounts_pb2
from accord.app.v1 import permissions_pb2, reasons_pb2
from accord.errors.v1 import errors_pb2
from accord.errors.v1.errors_pb2 import Reason
from accord.policy.v1 import policy_pb2
from accord.policy.v1.policy_pb2 import (
    Access,
    Credential,
    MethodPolicy,
    Permission,
    PolicyDefaults,
    RateLimit,
    RateLimitKey,
    Role,
)
from accord.tasks.v1 import tasks_pb2
from accord_api.dependencies import Dependencies, Rules
from accord_api.registration import register
from accord_db.engine.model import Model
from accord_rpc.contract import ContractMismatch, Registry, check, contract_services
from accord_rpc.drift import drift
from accord_rpc.messages import MessageMapper
from accord_rpc.permissions import PERMISSION_NAMES, permission_faults
from accord_rpc.policy import Policy, effective_policy, read_methods
from accord_rpc.reasons import REASONS, reason_faults
from buf.validate import validate_pb2

GOOD = MethodPolicy(
    access=Access.ACCESS_SIGNED_IN, default_deadline=Duration(seconds=1), max_deadline=Duration(seconds=2)
)


def contract(
    policy: MethodPolicy | None,
    *fields: FieldDescriptorProto,
    defaults: PolicyDefaults | None = None,
    app_permission: int = 0,
    app_errors: Sequence[int] = (),
    streaming: bool = False,
    client_streaming: bool = False,
) -> ServiceDescriptor:
    """A service with one method, in a separate pool."""
    pool = descriptor_pool.DescriptorPool()
    for known in (descriptor_pb2, validate_pb2, policy_pb2):
        _add_with_imports(pool, known.DESCRIPTOR)
    file = FileDescriptorProto(name="made.proto", package="made", syntax="proto3")
    file.dependency.append("accord/policy/v1/policy.proto")
    file.message_type.add(name="Request").field.extend(fields)
    file.message_type.add(name="Response")
    file.message_type.add(name="Contact").field.append(text_field("email", names_account=True))
    service = file.service.add(name="MadeService")
    if defaults is not None:
        service.options.Extensions[policy_pb2.policy_defaults].CopyFrom(defaults)
    method = service.method.add(
        name="Do",
        input_type=".made.Request",
        output_type=".made.Response",
        server_streaming=streaming,
        client_streaming=client_streaming,
    )
    if policy is not None:
        method.options.Extensions[policy_pb2.policy].CopyFrom(policy)
    if app_permission:
        method.options.Extensions[permissions_pb2.permission] = cast(Any, app_permission)
    method.options.Extensions[reasons_pb2.errors].extend(cast(Any, app_errors))
    pool.Add(file)
    return pool.FindServiceByName("made.MadeService")


def _add_with_imports(pool: descriptor_pool.DescriptorPool, file: Any) -> None:
    for imported in file.dependencies:
        _add_with_imports(pool, imported)
    declared = FileDescriptorProto()
    file.CopyToProto(declared)
    pool.Add(declared)


def faults(policy: MethodPolicy | None, *fields: FieldDescriptorProto, **options: Any) -> str:
    methods, found = read_methods([contract(policy, *fields, **options)])
    assert bool(methods) != bool(found)
    return "\n".join(found)


def changed(**fields: Any) -> MethodPolicy:
    kept = {field.name: value for field, value in GOOD.ListFields() if field.name not in fields}
    return MethodPolicy(**kept, **fields)


def limit(key: RateLimitKey.ValueType, **options: bool) -> RateLimit:
    return RateLimit(count=1, window=Duration(seconds=1), key=key, **options)


def text_field(
    name: str, number: int = 1, *, sensitive: bool = False, names_account: bool = False
) -> FieldDescriptorProto:
    field = FieldDescriptorProto(
        name=name, number=number, type=FieldDescriptorProto.TYPE_STRING, label=FieldDescriptorProto.LABEL_OPTIONAL
    )
    if sensitive:
        field.options.Extensions[policy_pb2.sensitive] = True
    if names_account:
        field.options.Extensions[policy_pb2.names_account] = True
    return field


def test_valid_policy_is_read() -> None:
    assert faults(GOOD) == ""


def test_method_without_a_policy_is_refused() -> None:
    assert faults(None) == "made.MadeService.Do: declares no policy (option accord.policy.v1.policy)"


@pytest.mark.parametrize(
    ("policy", "fault"),
    [
        (changed(access=0), "has no access"),
        (changed(access=99), "has no access"),
        (changed(permission=77), "permission 77, which the contract does not have"),
        (changed(errors=[Reason.REASON_TASK_NOT_FOUND, 7777]), "error 7777, which the contract does not have"),
        (changed(errors=[0]), "error 0, which the contract does not have"),
        (changed(credentials=[9]), "credential 9, which the contract does not have"),
        (changed(default_deadline=Duration()), "neither its policy nor its service has a default_deadline"),
        (changed(max_deadline=Duration()), "max_deadline is missing"),
        (changed(max_deadline=Duration(nanos=5)), "shorter than its default_deadline"),
        (changed(access=Access.ACCESS_PUBLIC, fresh=True), "it is public, yet its policy has"),
        (
            changed(access=Access.ACCESS_PUBLIC, credentials=[Credential.CREDENTIAL_SESSION]),
            "it is public, yet its policy has",
        ),
        (changed(rate_limits=[RateLimit(count=1, window=Duration(seconds=1))]), "has no key"),
        (
            changed(rate_limits=[RateLimit(count=0, window=Duration(seconds=1), key=RateLimitKey.RATE_LIMIT_KEY_PEER)]),
            "count of at least 1",
        ),
        (
            changed(rate_limits=[RateLimit(count=1, window=Duration(nanos=9), key=RateLimitKey.RATE_LIMIT_KEY_PEER)]),
            "window of whole seconds",
        ),
        (
            changed(
                access=Access.ACCESS_PUBLIC,
                rate_limits=[RateLimit(count=1, window=Duration(seconds=1), key=RateLimitKey.RATE_LIMIT_KEY_CALLER)],
            ),
            "counts by caller",
        ),
        (changed(rate_limits=[limit(RateLimitKey.RATE_LIMIT_KEY_ACCOUNT)]), "by account, and so must be durable"),
        (
            changed(rate_limits=[limit(RateLimitKey.RATE_LIMIT_KEY_ACCOUNT_AND_PEER)]),
            "by account, and so must be durable",
        ),
        (
            changed(rate_limits=[limit(RateLimitKey.RATE_LIMIT_KEY_PEER, failures_only=True)]),
            "failures only, and so must",
        ),
        (
            changed(rate_limits=[limit(RateLimitKey.RATE_LIMIT_KEY_PEER)] * 2),
            "two rate limits of its policy are the same",
        ),
        (changed(rate_limits=[limit(RateLimitKey.RATE_LIMIT_KEY_UNSPECIFIED)]), "has no key"),
        (changed(rate_limits=[limit(RateLimitKey.RATE_LIMIT_KEY_ORGANIZATION)]), "counts by organization"),
        (
            changed(
                rate_limits=[limit(RateLimitKey.RATE_LIMIT_KEY_ORGANIZATION)],
                permission=Permission.PERMISSION_TASKS_READ,
                personal=True,
            ),
            "counts by organization",
        ),
        (
            changed(access=Access.ACCESS_ADMIN, permission=Permission.PERMISSION_TASKS_READ),
            "has a permission, which requires",
        ),
        (
            changed(access=Access.ACCESS_PUBLIC, permission=Permission.PERMISSION_TASKS_READ),
            "has a permission, which requires",
        ),
        (changed(personal=True), "is personal, yet has no permission"),
        (changed(access=Access.ACCESS_ADMIN, before_password_change=True), "has before_password_change, which is for"),
        (
            changed(permission=Permission.PERMISSION_TASKS_READ, before_password_change=True),
            "has before_password_change, which is for",
        ),
        (
            changed(access=Access.ACCESS_SERVICE, credentials=[Credential.CREDENTIAL_SESSION]),
            "for services, yet accepts a credential of people",
        ),
        (
            changed(access=Access.ACCESS_SERVICE, credentials=[Credential.CREDENTIAL_API_KEY]),
            "for services, yet accepts a credential of people",
        ),
        (changed(access=Access.ACCESS_SERVICE), "must name the credentials of services"),
        (
            changed(access=Access.ACCESS_ADMIN, credentials=[Credential.CREDENTIAL_SERVICE_TOKEN]),
            "for administrators, and so may accept sessions only",
        ),
        (changed(fresh=True, credentials=[Credential.CREDENTIAL_API_KEY]), "is fresh, and so may accept sessions"),
        (changed(in_person=True, credentials=[Credential.CREDENTIAL_SERVICE_TOKEN]), "so may accept sessions only"),
        (changed(access=Access.ACCESS_PUBLIC, in_person=True), "it is public, yet its policy has"),
    ],
)
def test_policy_that_contradicts_itself_or_the_contract_is_refused(policy: MethodPolicy, fault: str) -> None:
    assert fault in faults(policy)


def test_request_id_is_refused_on_methods_that_cannot_store_it() -> None:
    request_id = text_field("request_id")
    assert faults(GOOD, request_id) == ""
    assert "cannot take a request_id" in faults(GOOD, request_id, streaming=True)
    assert "no caller whose request_id" in faults(changed(access=Access.ACCESS_PUBLIC), request_id)
    assert "must not be stored" in faults(GOOD, request_id, text_field("secret", 2, sensitive=True))


def test_field_that_names_an_account_requires_a_rate_limit_by_account() -> None:
    counting = changed(rate_limits=[limit(RateLimitKey.RATE_LIMIT_KEY_ACCOUNT, durable=True)])
    email = text_field("email", names_account=True)
    assert faults(counting, email) == ""
    assert faults(counting) == ""  # the handler finds the account and calls limit_account
    assert "yet no rate limit of its policy counts by account" in faults(GOOD, email)
    assert "several fields" in faults(counting, email, text_field("other", 2, names_account=True))
    assert "streams its requests" in faults(counting, email, client_streaming=True)


def test_field_that_names_an_account_must_be_a_single_string_of_the_request_itself() -> None:
    counting = changed(rate_limits=[limit(RateLimitKey.RATE_LIMIT_KEY_ACCOUNT, durable=True)])
    several, number, inner = (text_field("email", names_account=True) for _ in range(3))
    several.label, number.type = FieldDescriptorProto.LABEL_REPEATED, FieldDescriptorProto.TYPE_INT64
    inner.type, inner.type_name = FieldDescriptorProto.TYPE_MESSAGE, ".made.Response"
    assert "must be a single string" in faults(counting, several)
    assert "must be a single string" in faults(counting, number)
    assert "must be a single string" in faults(counting, inner)
    outer = text_field("contact")
    outer.type, outer.type_name = FieldDescriptorProto.TYPE_MESSAGE, ".made.Contact"
    assert "must be in the request itself" in faults(counting, outer)


# --- defaults of a service --------------------------------------------------------------------------------------------
DEFAULTS = PolicyDefaults(
    credentials=[Credential.CREDENTIAL_SESSION, Credential.CREDENTIAL_API_KEY],
    rate_limits=[limit(RateLimitKey.RATE_LIMIT_KEY_PEER), limit(RateLimitKey.RATE_LIMIT_KEY_CALLER)],
    default_deadline=Duration(seconds=5),
    max_deadline=Duration(seconds=30),
)
SIGNED_IN = MethodPolicy(access=Access.ACCESS_SIGNED_IN)
FIELDS = [field.name for field in PolicyDefaults.DESCRIPTOR.fields]


def policy_with_defaults(policy: MethodPolicy, defaults: PolicyDefaults = DEFAULTS) -> Policy:
    [method], _ = read_methods([contract(policy, defaults=defaults)])
    return method.policy


def default(name: str) -> PolicyDefaults:
    """Only this one of the defaults."""
    return PolicyDefaults(**{name: getattr(DEFAULTS, name)})


def test_only_credentials_rate_limits_and_deadlines_have_defaults() -> None:
    assert FIELDS == ["credentials", "rate_limits", "default_deadline", "max_deadline"]


def test_method_inherits_undeclared_fields_from_its_service() -> None:
    policy = policy_with_defaults(SIGNED_IN)
    assert policy.credentials == {Credential.CREDENTIAL_SESSION, Credential.CREDENTIAL_API_KEY}
    assert policy.rate_limits == tuple(DEFAULTS.rate_limits)
    assert (policy.default_deadline, policy.max_deadline) == (5, 30)


@pytest.mark.parametrize("name", FIELDS)
def test_value_of_a_method_overrides_only_its_own_default(name: str) -> None:
    own = MethodPolicy(
        access=Access.ACCESS_SIGNED_IN,
        credentials=[Credential.CREDENTIAL_SERVICE_TOKEN],
        rate_limits=[limit(RateLimitKey.RATE_LIMIT_KEY_CALLER, durable=True)],
        default_deadline=Duration(seconds=6),
        max_deadline=Duration(seconds=40),
    )
    expected = MethodPolicy(access=Access.ACCESS_SIGNED_IN, **{name: getattr(own, name)})
    expected.MergeFrom(MethodPolicy(**{other: getattr(DEFAULTS, other) for other in FIELDS if other != name}))
    declared = MethodPolicy(access=Access.ACCESS_SIGNED_IN, **{name: getattr(own, name)})
    [method] = contract(declared, defaults=DEFAULTS).methods
    assert effective_policy(method) == expected
    assert policy_with_defaults(declared) == Policy.of(expected)


def test_public_method_ignores_the_credentials_of_its_service() -> None:
    defaults = PolicyDefaults(default_deadline=Duration(seconds=1), max_deadline=Duration(seconds=2))
    public = MethodPolicy(access=Access.ACCESS_PUBLIC)
    assert policy_with_defaults(public, defaults).access == Access.ACCESS_PUBLIC
    defaults.credentials.append(Credential.CREDENTIAL_API_KEY)
    [method] = contract(public, defaults=defaults).methods
    assert list(effective_policy(method).credentials) == []


def test_method_without_any_deadline_is_refused() -> None:
    found = faults(SIGNED_IN)
    assert "made.MadeService.Do: neither its policy nor its service has a default_deadline" in found
    assert "its max_deadline is missing" in found
    assert "its max_deadline is missing" in faults(SIGNED_IN, defaults=default("default_deadline"))


@pytest.mark.parametrize(
    ("policy", "defaults", "fault"),
    [
        (MethodPolicy(access=Access.ACCESS_SIGNED_IN, fresh=True), DEFAULTS, "may accept sessions only"),
        (MethodPolicy(access=Access.ACCESS_SIGNED_IN, in_person=True), DEFAULTS, "may accept sessions only"),
        (MethodPolicy(access=Access.ACCESS_ADMIN), DEFAULTS, "may accept sessions only"),
        (MethodPolicy(access=Access.ACCESS_SERVICE), DEFAULTS, "accepts a credential of people"),
        (MethodPolicy(access=Access.ACCESS_PUBLIC), DEFAULTS, "counts by caller"),
        (changed(), PolicyDefaults(credentials=[cast(Any, 9)]), "credential 9"),
        (changed(), PolicyDefaults(rate_limits=[RateLimit(count=1)]), "has no key"),
        (changed(max_deadline=Duration(seconds=4)), DEFAULTS, "shorter than its default_deadline"),
    ],
)
def test_default_that_contradicts_the_method_is_refused_and_named(
    policy: MethodPolicy, defaults: PolicyDefaults, fault: str
) -> None:
    policy = MethodPolicy.FromString(policy.SerializeToString())
    if defaults is DEFAULTS:
        policy.ClearField("default_deadline")
    found = faults(policy, defaults=defaults)
    assert fault in found
    assert "policy_defaults of its service set " in found


@pytest.mark.parametrize("name", FIELDS)
def test_default_that_no_method_uses_is_refused(name: str) -> None:
    own = MethodPolicy(access=Access.ACCESS_SIGNED_IN, **{name: getattr(DEFAULTS, name) for name in FIELDS})
    _, found = read_methods([contract(own, defaults=default(name))])
    assert found == [f"made.MadeService: no method uses {name} of its policy_defaults"]


def test_credentials_of_a_service_whose_methods_are_all_public_are_refused() -> None:
    public = changed(access=Access.ACCESS_PUBLIC)
    _, found = read_methods([contract(public, defaults=default("credentials"))])
    assert found == ["made.MadeService: no method uses credentials of its policy_defaults"]


def test_no_method_of_the_contract_repeats_a_default() -> None:
    methods = [method for service in contract_services() for method in service.methods]
    repeated = []
    for method in methods:
        defaults = method.containing_service.GetOptions().Extensions[policy_pb2.policy_defaults]
        declared = method.GetOptions().Extensions[policy_pb2.policy]
        own = {field.name for field, _ in declared.ListFields()}
        same = [name for name in FIELDS if getattr(declared, name) == getattr(defaults, name)]
        repeated += [f"{method.full_name}: {name}" for name in same if name in own]
    assert len(methods) > 80
    assert repeated == []


# --- permissions and reasons ------------------------------------------------------------------------------------------
class Value(NamedTuple):
    """A value of an enum of reasons or permissions. Only the options of its kind are set."""

    number: int
    name: str = "A"
    stored: str = "a.b"
    roles: Sequence[int] = ()
    code: int = Code.NOT_FOUND
    message: str = "It does not exist."
    pipeline: bool = False


ACCORD, APPLICATION = ("accord.made.v1", "accord.app.v1")
NO_VALUES: Sequence[Value] = ()


def enum(package: str, kind: str, values: Sequence[Value]) -> EnumDescriptor:
    """An enum of reasons or permissions in a separate pool."""
    pool = descriptor_pool.DescriptorPool()
    _add_with_imports(pool, policy_pb2.DESCRIPTOR)
    file = FileDescriptorProto(name="made.proto", package=package, syntax="proto3")
    file.dependency.extend(["accord/policy/v1/policy.proto", "accord/errors/v1/errors.proto"])
    made = file.enum_type.add(name=kind)
    made.options.allow_alias = len({value.number for value in values}) < len(values)
    made.value.add(name="UNSPECIFIED", number=0)
    for value in values:
        options = made.value.add(name=value.name, number=value.number).options
        if kind == "Permission":
            options.Extensions[policy_pb2.permission_name] = value.stored
            options.Extensions[policy_pb2.held_by].extend(cast(Any, value.roles))
        else:
            options.Extensions[errors_pb2.answer].CopyFrom(
                errors_pb2.Answer(code=cast(Any, value.code), message=value.message, pipeline=value.pipeline)
            )
    pool.Add(file)
    return pool.FindEnumTypeByName(f"{package}.{kind}")


def found_in(kind: str, accord: Sequence[Value], application: Sequence[Value] = ()) -> list[str]:
    check_values = {"Permission": permission_faults, "Reason": reason_faults}[kind]
    return check_values(enum(ACCORD, kind, accord), enum(APPLICATION, kind, application))


@pytest.mark.parametrize("kind", ["Permission", "Reason"])
def test_numbers_below_1000_belong_to_accord_and_others_to_the_application(kind: str) -> None:
    assert found_in(kind, [Value(999)], [Value(1000, "B", "b.c")]) == []
    assert found_in(kind, [Value(1000)]) == [
        "accord.made.v1.A: numbers from 1000 belong to the application (accord.app.v1)"
    ]
    for number in (999, 1, -1):
        assert found_in(kind, NO_VALUES, [Value(number)]) == ["accord.app.v1.A: numbers below 1000 belong to Accord"]


@pytest.mark.parametrize("kind", ["Permission", "Reason"])
def test_number_with_two_names_is_refused(kind: str) -> None:
    twice = [Value(1000), Value(1000, "B", "b.c")]
    assert found_in(kind, NO_VALUES, twice) == ["accord.app.v1.B: shares its number 1000 with A"]


def test_reason_of_the_application_with_a_name_of_accord_is_refused() -> None:
    same = found_in("Reason", [Value(1)], [Value(1000)])
    assert same == ["accord.app.v1.A: Accord has a reason with this name"]


@pytest.mark.parametrize("number", [1, 1000])
def test_reason_without_a_code_or_a_message_is_refused(number: int) -> None:
    for value in (Value(number, code=0), Value(number, message="")):
        accord, application = ([value], []) if number == 1 else ([], [value])
        [found] = found_in("Reason", accord, application)
        assert "declares no status code or no message" in found


def test_only_accord_declares_reasons_of_the_pipeline() -> None:
    assert found_in("Reason", [Value(1, pipeline=True)]) == []
    [found] = found_in("Reason", NO_VALUES, [Value(1000, pipeline=True)])
    assert "only reasons of Accord's pipeline set `pipeline`" in found


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (Value(1, stored=""), "A: has no name like `tasks.write`"),
        (Value(1, stored="Tasks.Write"), "A: has no name like"),
        (Value(1, stored="tasks"), "A: has no name like"),
        (Value(1, roles=[Role.ROLE_UNSPECIFIED]), "A: is held by a role that the contract does not have"),
        (Value(1, roles=[Role.ROLE_ADMIN, 77]), "A: is held by a role that the contract does not have"),
    ],
)
def test_permission_that_cannot_be_stored_or_held_is_refused(value: Value, fault: str) -> None:
    for accord, application in (([value], []), ([], [value._replace(number=1000)])):
        [found] = found_in("Permission", accord, application)
        assert fault in found


def test_two_permissions_with_one_stored_name_are_refused() -> None:
    shared = "shares its name a.b with another permission"
    assert found_in("Permission", [Value(1), Value(2, "B")]) == [f"accord.made.v1.{name}: {shared}" for name in "AB"]
    both = found_in("Permission", [Value(1)], [Value(1000, "B")])
    assert both == [f"accord.made.v1.A: {shared}", f"accord.app.v1.B: {shared}"]


def test_reasons_and_permissions_of_the_contract_are_valid() -> None:
    assert (permission_faults(), reason_faults()) == ([], [])
    declared = [*Permission.values(), *permissions_pb2.Permission.values()]
    assert len(PERMISSION_NAMES) == len(set(PERMISSION_NAMES.values())) == len(declared) - 2
    assert len(REASONS) == len([*Reason.values(), *reasons_pb2.Reason.values()]) - 2


@pytest.mark.parametrize(
    ("faults_of", "kind", "fault"),
    [(permission_faults, "Permission", "A: has no name like"), (reason_faults, "Reason", "A: declares no status code")],
)
def test_gateway_refuses_an_incomplete_reason_or_permission_of_the_application(
    monkeypatch: pytest.MonkeyPatch, faults_of: Any, kind: str, fault: str
) -> None:
    incomplete = enum(APPLICATION, kind, [Value(1000, stored="", message="")])
    monkeypatch.setattr(faults_of, "__defaults__", (enum(ACCORD, kind, NO_VALUES), incomplete))
    assert f"accord.app.v1.{fault}" in mismatch(contract_services(), registered())


def test_options_of_the_application_are_part_of_the_policy() -> None:
    """Uses numbers of Accord, because this contract has no values of an application."""
    read, missing = Permission.PERMISSION_TASKS_READ, Reason.REASON_TASK_NOT_FOUND
    [method], found = read_methods([contract(GOOD, app_permission=read, app_errors=[missing])])
    assert found == []
    assert method.policy.permission == read
    assert method.policy.errors == {missing}
    declared = changed(errors=[Reason.REASON_ETAG_MISMATCH])
    [method], _ = read_methods([contract(declared, app_errors=[missing])])
    assert method.policy.errors == {missing, Reason.REASON_ETAG_MISMATCH}


def test_options_of_the_application_are_checked() -> None:
    assert "permission 1999, which the contract does not have" in faults(GOOD, app_permission=1999)
    assert "error 1999, which the contract does not have" in faults(GOOD, app_errors=[1999])
    public = changed(access=Access.ACCESS_PUBLIC)
    assert "has a permission, which requires" in faults(public, app_permission=Permission.PERMISSION_TASKS_READ)
    both = changed(permission=Permission.PERMISSION_TASKS_WRITE)
    assert "a method requires one" in faults(both, app_permission=Permission.PERMISSION_TASKS_READ)
    assert "declares no policy" in faults(None, app_permission=Permission.PERMISSION_TASKS_READ)


# --- handlers ---------------------------------------------------------------------------------------------------------
def mismatch(services: Any, registered: Registry) -> str:
    with pytest.raises(ContractMismatch) as caught:
        check(services, registered, Validator())
    return str(caught.value)


def dependencies() -> Dependencies:
    nothing: dict[str, Any] = {field.name: None for field in fields(Dependencies)}
    return Dependencies(**nothing | {"secret_key": b"", "rules": Rules()})


def registered() -> Registry:
    return register(dependencies())


def test_served_contract_is_valid() -> None:
    methods = check(contract_services(), registered(), Validator())
    assert {method.path for method in methods} == set(registered().handlers)
    assert len(methods) >= 12


def test_service_without_a_handler_and_handler_without_a_service_are_both_reported() -> None:
    recorder = registered()
    recorder.services.remove("accord.tasks.v1.TaskService")
    recorder.add_registered_method_handlers("accord.old.v1.OldService", {})
    message = mismatch(contract_services(), recorder)
    assert "accord.tasks.v1.TaskService: the contract has this service, but no handler is registered" in message
    assert "accord.old.v1.OldService: a handler is registered, but the contract has no such service" in message


def test_method_that_no_handler_implements_is_refused() -> None:
    from accord.tasks.v1.tasks_pb2_grpc import TaskServiceServicer
    from accord_api.handlers.tasks import TaskService

    class Incomplete(TaskService):
        GetTask = TaskServiceServicer.GetTask  # type: ignore[assignment]

    recorder = registered()
    recorder.add(Incomplete(dependencies()))
    assert "accord.tasks.v1.TaskService.GetTask: the handler does not implement it" in mismatch(
        contract_services(), recorder
    )


def test_resource_without_a_table_is_refused() -> None:
    registry = registered()
    del registry.resources[tasks_pb2.Task]
    assert "accord.tasks.v1.Task: has an id, but no servicer names its table" in mismatch(contract_services(), registry)


def test_table_without_a_tenant_or_a_reason_is_refused() -> None:
    made = Table("made", Model.metadata, Column("id", Uuid, primary_key=True))
    try:
        assert "table made has no row-level security: " in mismatch(contract_services(), registered())
    finally:
        Model.metadata.remove(made)


# --- drift ------------------------------------------------------------------------------------------------------------
def drift_of(message: type[Message], **columns: Any) -> list[str]:
    """The faults that the check reports for a message and a table with these columns."""
    base = type("Base", (DeclarativeBase,), {})
    return list(drift(message, type("Made", (base,), {"__tablename__": "made", **columns})))


def session_columns(**others: Any) -> dict[str, Any]:
    times = ("created_at", "expires_at", "idle_expires_at", "last_used_at", "authenticated_at")
    right = {
        "id": mapped_column(Uuid, primary_key=True),
        "account_id": mapped_column(Uuid, nullable=False),
        **{name: mapped_column(DateTime(timezone=True), nullable=False) for name in times},
        "peer": mapped_column(String, nullable=True),
        "user_agent": mapped_column(String, nullable=True),
        "active_organization_id": mapped_column(Uuid, nullable=True),
        "impersonator_id": mapped_column(Uuid, nullable=True),
        "provider": mapped_column(String(50), nullable=True),
        "password_change_required": mapped_column(Boolean, nullable=False),
    }
    return {name: column for name, column in (right | others).items() if column is not None}


def test_message_that_matches_its_table_has_no_drift() -> None:
    assert drift_of(accounts_pb2.Session, **session_columns()) == []
    assert drift_of(accounts_pb2.Session, **session_columns(more=mapped_column(String))) == []


@pytest.mark.parametrize(
    ("expires_at", "fault"),
    [
        (None, "Session.expires_at: table made has no column with that name"),
        (mapped_column(String, nullable=False), "the field needs timestamptz, and the column is text"),
        (mapped_column(JSONB, nullable=False), "the field needs timestamptz, and the column is jsonb"),
        (mapped_column(Interval, nullable=False), "and the column is of a type that no field can have"),
        (
            mapped_column(DateTime(timezone=True), nullable=True),
            "needs a column that can be NULL, and only an optional",
        ),
    ],
)
def test_field_that_does_not_match_its_column_is_refused(expires_at: Any, fault: str) -> None:
    (found,) = drift_of(accounts_pb2.Session, **session_columns(expires_at=expires_at))
    assert fault in found


def test_string_field_with_another_length_than_its_column_is_refused() -> None:
    columns = session_columns(
        email=mapped_column(String(100), nullable=False),
        display_name=mapped_column(String, nullable=False),
        image_url=mapped_column(String(2048), nullable=True),
        updated_at=mapped_column(DateTime(timezone=True), nullable=False),
        email_verified_at=mapped_column(DateTime(timezone=True), nullable=True),
        etag=mapped_column(Uuid, nullable=False),
    )
    assert drift_of(accounts_pb2.Account, **columns) == [
        "accord.accounts.v1.Account.email and made.email: max_len is 254, and the column's length 100",
        "accord.accounts.v1.Account.display_name and made.display_name: max_len is 100, and the column's length None",
    ]


def test_enum_field_with_other_values_than_its_column_is_refused() -> None:
    file = FileDescriptorProto(name="status.proto", package="made", syntax="proto3")
    status = file.enum_type.add(name="Status")
    for number, name in enumerate(("STATUS_UNSPECIFIED", "STATUS_ACTIVE", "STATUS_PAUSED")):
        status.value.add(name=name, number=number)
    file.message_type.add(name="Thing").field.add(
        name="status", number=1, type=FieldDescriptorProto.TYPE_ENUM, label=1, type_name=".made.Status"
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    thing = GetMessageClass(pool.FindMessageTypeByName("made.Thing"))
    key = mapped_column(Uuid, primary_key=True)
    same = mapped_column(Enum("active", "paused", native_enum=False), nullable=False)
    assert drift_of(thing, id=key, status=same) == []
    other = mapped_column(Enum("active", "ended", native_enum=False), nullable=False)
    (found,) = drift_of(thing, id=mapped_column(Uuid, primary_key=True), status=other)
    assert "the enum has ['active', 'paused'], and the column allows ['active', 'ended']" in found
    row = SimpleNamespace(status="paused")
    assert MessageMapper(thing)(row) == thing(status=2)


def test_gateway_names_a_field_that_differs_from_its_column() -> None:
    base = type("Base", (DeclarativeBase,), {})
    wrong = type("Made", (base,), {"__tablename__": "made", **session_columns(expires_at=None)})
    registry = registered()
    registry.resources[accounts_pb2.Session] = wrong
    message = mismatch(contract_services(), registry)
    assert "accord.accounts.v1.Session.expires_at: table made has no column with that name" in message
