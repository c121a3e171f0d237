"""What the gateway refuses to start with. Contracts are made here, with one thing wrong in each."""

from dataclasses import fields
from types import SimpleNamespace
from typing import Any, cast

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import EnumDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from protovalidate import Validator
from sqlalchemy import DateTime, Enum, Interval, String, Uuid
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, mapped_column

from accord.accounts.v1 import accounts_pb2
from accord.errors.v1.errors_pb2 import Reason
from accord.policy.v1 import policy_pb2
from accord.policy.v1.policy_pb2 import Access, Credential, MethodPolicy, Permission, RateLimit, RateLimitKey, Role
from accord.tasks.v1 import tasks_pb2
from accord_api.dependencies import Dependencies, Rules
from accord_api.registration import register
from accord_rpc.contract import ContractMismatch, Registry, check, contract_services
from accord_rpc.drift import drift
from accord_rpc.messages import MessageMapper
from accord_rpc.permissions import PERMISSION_NAMES, permission_faults
from accord_rpc.policy import read_methods
from buf.validate import validate_pb2

GOOD = MethodPolicy(
    access=Access.ACCESS_SIGNED_IN, default_deadline=Duration(seconds=1), max_deadline=Duration(seconds=2)
)


def contract(
    policy: MethodPolicy | None,
    *fields: FieldDescriptorProto,
    streaming: bool = False,
    client_streaming: bool = False,
) -> ServiceDescriptor:
    """A service of one method, in a pool of its own."""
    pool = descriptor_pool.DescriptorPool()
    for known in (descriptor_pb2, validate_pb2, policy_pb2):
        _add_with_imports(pool, known.DESCRIPTOR)
    file = FileDescriptorProto(name="made.proto", package="made", syntax="proto3")
    file.dependency.append("accord/policy/v1/policy.proto")
    file.message_type.add(name="Request").field.extend(fields)
    file.message_type.add(name="Response")
    file.message_type.add(name="Contact").field.append(text_field("email", names_account=True))
    method = file.service.add(name="MadeService").method.add(
        name="Do",
        input_type=".made.Request",
        output_type=".made.Response",
        server_streaming=streaming,
        client_streaming=client_streaming,
    )
    if policy is not None:
        method.options.Extensions[policy_pb2.policy].CopyFrom(policy)
    pool.Add(file)
    return pool.FindServiceByName("made.MadeService")


def _add_with_imports(pool: descriptor_pool.DescriptorPool, file: Any) -> None:
    for imported in file.dependencies:
        _add_with_imports(pool, imported)
    declared = FileDescriptorProto()
    file.CopyToProto(declared)
    pool.Add(declared)


def faults(policy: MethodPolicy | None, *fields: FieldDescriptorProto, **options: bool) -> str:
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


def test_policy_without_fault_is_read() -> None:
    assert faults(GOOD) == ""


def test_method_without_a_policy_is_refused() -> None:
    assert faults(None) == "made.MadeService.Do: declares no policy (option accord.policy.v1.policy)"


@pytest.mark.parametrize(
    ("policy", "fault"),
    [
        (changed(access=0), "does not say who may call"),
        (changed(access=99), "does not say who may call"),
        (changed(permission=77), "permission 77, which the contract does not have"),
        (changed(errors=[Reason.REASON_TASK_NOT_FOUND, 7777]), "error 7777, which the contract does not have"),
        (changed(errors=[0]), "error 0, which the contract does not have"),
        (changed(credentials=[9]), "credential 9, which the contract does not have"),
        (changed(default_deadline=Duration()), "no default_deadline"),
        (changed(max_deadline=Duration()), "max_deadline is missing"),
        (changed(max_deadline=Duration(nanos=5)), "shorter than the default_deadline"),
        (changed(access=Access.ACCESS_PUBLIC, fresh=True), "it is public, yet asks for"),
        (changed(access=Access.ACCESS_PUBLIC, credentials=[Credential.CREDENTIAL_SESSION]), "it is public, yet asks"),
        (changed(rate_limits=[RateLimit(count=1, window=Duration(seconds=1))]), "whose calls are counted"),
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
        (changed(rate_limits=[limit(RateLimitKey.RATE_LIMIT_KEY_UNSPECIFIED)]), "whose calls are counted"),
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
            "a permission, which only people have",
        ),
        (
            changed(access=Access.ACCESS_PUBLIC, permission=Permission.PERMISSION_TASKS_READ),
            "a permission, which only people have",
        ),
        (changed(personal=True), "is personal, yet names no permission"),
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
            "for administrators, and so accepts a session alone",
        ),
        (changed(fresh=True, credentials=[Credential.CREDENTIAL_API_KEY]), "fresh sign-in, and so accepts a session"),
        (changed(in_person=True, credentials=[Credential.CREDENTIAL_SERVICE_TOKEN]), "so accepts a session alone"),
        (changed(access=Access.ACCESS_PUBLIC, in_person=True), "it is public, yet asks for"),
    ],
)
def test_policy_that_contradicts_itself_or_the_contract_is_refused(policy: MethodPolicy, fault: str) -> None:
    assert fault in faults(policy)


def test_request_id_is_refused_where_it_could_not_be_kept() -> None:
    request_id = text_field("request_id")
    assert faults(GOOD, request_id) == ""
    assert "cannot take a request_id" in faults(GOOD, request_id, streaming=True)
    assert "no caller whose request_id" in faults(changed(access=Access.ACCESS_PUBLIC), request_id)
    assert "must not be stored" in faults(GOOD, request_id, text_field("secret", 2, sensitive=True))


def test_field_that_names_an_account_must_be_what_a_rate_limit_counts() -> None:
    counting = changed(rate_limits=[limit(RateLimitKey.RATE_LIMIT_KEY_ACCOUNT, durable=True)])
    email = text_field("email", names_account=True)
    assert faults(counting, email) == ""
    assert faults(counting) == ""  # the handler finds the account, and says so
    assert "yet no rate limit of its policy counts by account" in faults(GOOD, email)
    assert "several fields" in faults(counting, email, text_field("other", 2, names_account=True))
    assert "streams its requests" in faults(counting, email, client_streaming=True)


def test_field_that_names_an_account_must_be_a_single_text_of_the_request_itself() -> None:
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


# --- permissions ------------------------------------------------------------------------------------------------------
def permissions(*named: tuple[str, str, list[int]]) -> EnumDescriptor:
    """An enum of permissions, each with its `permission_name` and who holds it, in a pool of its own."""
    pool = descriptor_pool.DescriptorPool()
    _add_with_imports(pool, policy_pb2.DESCRIPTOR)
    file = FileDescriptorProto(name="made.proto", package="made", syntax="proto3")
    file.dependency.append("accord/policy/v1/policy.proto")
    made = file.enum_type.add(name="Permission")
    made.value.add(name="PERMISSION_UNSPECIFIED", number=0)
    for number, (name, stored, roles) in enumerate(named, 1):
        value = made.value.add(name=name, number=number)
        value.options.Extensions[policy_pb2.permission_name] = stored
        value.options.Extensions[policy_pb2.held_by].extend(cast(Any, roles))
    pool.Add(file)
    return pool.FindEnumTypeByName("made.Permission")


@pytest.mark.parametrize(
    ("named", "fault"),
    [
        ([("A", "", [])], "A: has no name like `tasks.write`"),
        ([("A", "Tasks.Write", [])], "A: has no name like"),
        ([("A", "tasks", [])], "A: has no name like"),
        ([("A", "a.b", []), ("B", "a.b", [])], "A: shares its name a.b with another permission"),
        ([("A", "a.b", [Role.ROLE_UNSPECIFIED])], "A: is held by a role that the contract does not have"),
        ([("A", "a.b", [Role.ROLE_ADMIN, 77])], "A: is held by a role that the contract does not have"),
    ],
)
def test_permission_that_cannot_be_stored_or_held_is_refused(named: list[Any], fault: str) -> None:
    assert fault in "\n".join(permission_faults(permissions(*named)))


def test_permissions_of_the_contract_have_names_of_their_own() -> None:
    assert permission_faults(permissions(("A", "a.b", [Role.ROLE_ADMIN]), ("B", "api_keys.read", []))) == []
    assert permission_faults() == []
    assert len(PERMISSION_NAMES) == len(set(PERMISSION_NAMES.values())) == len(Permission.values()) - 1


def test_gateway_refuses_a_permission_without_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(permission_faults, "__defaults__", (permissions(("A", "", [])),))
    assert "A: has no name like" in mismatch(contract_services(), registered())


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


def test_contract_as_it_is_served_has_no_fault() -> None:
    methods = check(contract_services(), registered(), Validator())
    assert {method.path for method in methods} == set(registered().handlers)
    assert len(methods) >= 12


def test_service_without_a_handler_and_handler_without_a_service_are_refused_together() -> None:
    recorder = registered()
    recorder.services.remove("accord.tasks.v1.TaskService")
    recorder.add_registered_method_handlers("accord.old.v1.OldService", {})
    message = mismatch(contract_services(), recorder)
    assert "accord.tasks.v1.TaskService: the contract has this service, but no handler is registered" in message
    assert "accord.old.v1.OldService: a handler is registered, but the contract has no such service" in message


def test_method_that_no_handler_implements_is_refused() -> None:
    from accord.tasks.v1.tasks_pb2_grpc import TaskServiceServicer
    from accord_api.handlers.tasks import TaskService

    class Forgetful(TaskService):
        GetTask = TaskServiceServicer.GetTask  # type: ignore[assignment]

    recorder = registered()
    recorder.add(Forgetful(dependencies()))
    assert "accord.tasks.v1.TaskService.GetTask: the handler does not implement it" in mismatch(
        contract_services(), recorder
    )


def test_resource_without_a_table_is_refused() -> None:
    registry = registered()
    del registry.resources[tasks_pb2.Task]
    assert "accord.tasks.v1.Task: has an id, but no servicer names its table" in mismatch(contract_services(), registry)


# --- drift ------------------------------------------------------------------------------------------------------------
def drift_of(message: type[Message], **columns: Any) -> list[str]:
    """What the gate says of a message and a table with these columns."""
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


def test_text_field_of_another_length_than_its_column_is_refused() -> None:
    columns = session_columns(
        email=mapped_column(String(100), nullable=False),
        display_name=mapped_column(String, nullable=False),
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


def test_gateway_refuses_a_drift_by_name() -> None:
    base = type("Base", (DeclarativeBase,), {})
    wrong = type("Made", (base,), {"__tablename__": "made", **session_columns(expires_at=None)})
    registry = registered()
    registry.resources[accounts_pb2.Session] = wrong
    message = mismatch(contract_services(), registry)
    assert "accord.accounts.v1.Session.expires_at: table made has no column with that name" in message
