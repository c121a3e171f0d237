"""The policies of the contract's methods, read from the descriptors once, at start."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

from google.protobuf.descriptor import (
    Descriptor,
    FieldDescriptor,
    MethodDescriptor,
    ServiceDescriptor,
)
from google.protobuf.descriptor_pb2 import MethodOptions
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from accord.app.v1 import permissions_pb2, reasons_pb2
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
)
from accord_rpc.permissions import PERMISSION_NAMES, AnyPermission
from accord_rpc.reasons import REASONS, AnyReason

if TYPE_CHECKING:
    IdempotencyLevel = MethodOptions.IdempotencyLevel

REQUEST_ID = "request_id"
OF_SERVICES: Final = frozenset({Credential.CREDENTIAL_SERVICE_TOKEN, Credential.CREDENTIAL_CLIENT_CERTIFICATE})
# The keys of rate limits that count the account which a call tries to enter.
BY_ACCOUNT = frozenset({RateLimitKey.RATE_LIMIT_KEY_ACCOUNT, RateLimitKey.RATE_LIMIT_KEY_ACCOUNT_AND_PEER})


@dataclass(frozen=True, slots=True)
class Policy:
    """A `MethodPolicy` in a form that is fast to read. Times are in seconds."""

    access: Access.ValueType
    permission: AnyPermission
    credentials: frozenset[Credential.ValueType]
    fresh: bool
    rate_limits: tuple[RateLimit, ...]
    default_deadline: float
    max_deadline: float
    errors: frozenset[AnyReason]
    audit: bool
    personal: bool
    # Also true of every method with `fresh`: an impersonator cannot authenticate as the user.
    in_person: bool
    before_password_change: bool

    @classmethod
    def of(cls, declared: MethodPolicy) -> "Policy":
        return cls(
            access=declared.access,
            permission=declared.permission,
            credentials=frozenset(declared.credentials) or frozenset({Credential.CREDENTIAL_SESSION}),
            fresh=declared.fresh,
            rate_limits=tuple(declared.rate_limits),
            default_deadline=declared.default_deadline.ToNanoseconds() / 1e9,
            max_deadline=declared.max_deadline.ToNanoseconds() / 1e9,
            errors=frozenset(declared.errors),
            audit=declared.audit,
            personal=declared.personal,
            in_person=declared.in_person or declared.fresh,
            before_password_change=declared.before_password_change,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Method:
    """One RPC: its names, its messages and its policy."""

    service: str
    name: str
    request: type[Message]
    response: type[Message]
    policy: Policy
    request_streaming: bool
    response_streaming: bool
    idempotent: bool
    # The field of the request that names the account for rate limits.
    account_field: str | None
    # It has no side effects, so that HTTP clients may call it with GET.
    safe: bool = False
    # Whether a call that succeeds ends the calling session.
    ends_session: bool = False

    @property
    def path(self) -> str:
        return f"/{self.service}/{self.name}"

    @classmethod
    def of(cls, descriptor: MethodDescriptor, declared: MethodPolicy) -> "Method":
        return cls(
            service=descriptor.containing_service.full_name,
            name=descriptor.name,
            request=GetMessageClass(descriptor.input_type),
            response=GetMessageClass(descriptor.output_type),
            policy=Policy.of(declared),
            request_streaming=descriptor.client_streaming,
            response_streaming=descriptor.server_streaming,
            safe=descriptor.GetOptions().idempotency_level == MethodOptions.NO_SIDE_EFFECTS,
            idempotent=REQUEST_ID in descriptor.input_type.fields_by_name,
            account_field=next((field.name for field in descriptor.input_type.fields if names_account(field)), None),
            ends_session=descriptor.GetOptions().Extensions[policy_pb2.ends_session],
        )


def read_methods(
    services: Iterable[ServiceDescriptor],
) -> tuple[list[Method], list[str]]:
    """The methods with a valid policy, and a sentence for each problem of the others."""
    services = list(services)
    methods: list[Method] = []
    faults: list[str] = [fault for service in services for fault in _unused_defaults(service)]
    for descriptor in (method for service in services for method in service.methods):
        found = list(_faults(descriptor))
        faults += [f"{descriptor.full_name}: {fault}" for fault in found]
        if not found:
            methods.append(Method.of(descriptor, effective_policy(descriptor)))
    return methods, faults


def effective_policy(method: MethodDescriptor) -> MethodPolicy:
    """The method's own policy, with the permission and the errors that its options of `accord.app.v1` name, completed with
    its service's `policy_defaults`."""
    policy, defaults = MethodPolicy(), _defaults(method.containing_service)
    policy.CopyFrom(_declared(method))
    options = method.GetOptions().Extensions
    if application := options[permissions_pb2.permission]:
        policy.permission = cast(Permission.ValueType, application)
    policy.errors.extend(cast(Iterable[Reason.ValueType], options[reasons_pb2.errors]))
    inherited = _inherited(method)
    if "credentials" in inherited:
        policy.credentials.extend(defaults.credentials)
    if "rate_limits" in inherited:
        policy.rate_limits.extend(defaults.rate_limits)
    if "default_deadline" in inherited:
        policy.default_deadline.CopyFrom(defaults.default_deadline)
    if "max_deadline" in inherited:
        policy.max_deadline.CopyFrom(defaults.max_deadline)
    return policy


def _declared(method: MethodDescriptor) -> MethodPolicy:
    return method.GetOptions().Extensions[policy_pb2.policy]


def _defaults(service: ServiceDescriptor) -> PolicyDefaults:
    return service.GetOptions().Extensions[policy_pb2.policy_defaults]


def _inherited(method: MethodDescriptor) -> list[str]:
    """The defaults of the service that the method's own policy does not replace."""
    own = {field.name for field, _ in _declared(method).ListFields()}
    if _declared(method).access == Access.ACCESS_PUBLIC:
        own.add("credentials")
    return [field.name for field, _ in _defaults(method.containing_service).ListFields() if field.name not in own]


def _unused_defaults(service: ServiceDescriptor) -> Iterable[str]:
    used = {name for method in service.methods for name in _inherited(method)}
    for field, _ in _defaults(service).ListFields():
        if field.name not in used:
            yield f"{service.full_name}: no method uses {field.name} of its policy_defaults"


def _faults(method: MethodDescriptor) -> Iterable[str]:
    if not method.GetOptions().HasExtension(policy_pb2.policy):
        yield "declares no policy (option accord.policy.v1.policy)"
        return
    policy, inherited = effective_policy(method), _inherited(method)
    if _declared(method).permission and method.GetOptions().Extensions[permissions_pb2.permission]:
        yield "it requires a permission of Accord and one of the application; a method requires one"
    note = f" (policy_defaults of its service set {', '.join(inherited)})" if inherited else ""
    yield from (
        fault + note for fault in (*_access_faults(policy), *_deadline_faults(policy), *_rate_limit_faults(policy))
    )
    yield from _account_field_faults(method, policy)
    yield from _error_faults(policy)
    yield from _request_id_faults(method)


def _access_faults(policy: MethodPolicy) -> Iterable[str]:
    if policy.access not in Access.values() or policy.access == Access.ACCESS_UNSPECIFIED:
        yield "its policy has no access"
    if policy.permission and policy.permission not in PERMISSION_NAMES:
        yield f"its policy names permission {policy.permission}, which the contract does not have"
    for credential in policy.credentials:
        if credential not in Credential.values() or credential == Credential.CREDENTIAL_UNSPECIFIED:
            yield f"its policy names credential {credential}, which the contract does not have"
    if policy.access == Access.ACCESS_PUBLIC and (policy.credentials or policy.fresh or policy.in_person):
        yield "it is public, yet its policy has credentials, fresh or in_person"
    if policy.permission and policy.access != Access.ACCESS_SIGNED_IN:
        yield "its policy has a permission, which requires ACCESS_SIGNED_IN"
    if policy.personal and not policy.permission:
        yield "its policy is personal, yet has no permission"
    if policy.access == Access.ACCESS_SERVICE and set(policy.credentials) - OF_SERVICES:
        yield "it is for services, yet accepts a credential of people"
    if policy.access == Access.ACCESS_SERVICE and not policy.credentials:
        yield "it is for services, and so must name the credentials of services that it accepts"
    if policy.access == Access.ACCESS_ADMIN and set(policy.credentials) - {Credential.CREDENTIAL_SESSION}:
        yield "it is for administrators, and so may accept sessions only"
    if policy.fresh and set(policy.credentials) - {Credential.CREDENTIAL_SESSION}:
        yield "its policy is fresh, and so may accept sessions only"
    if policy.in_person and set(policy.credentials) - {Credential.CREDENTIAL_SESSION}:
        yield "its policy is in_person, and so may accept sessions only"
    if policy.before_password_change and (policy.access != Access.ACCESS_SIGNED_IN or policy.permission):
        yield "its policy has before_password_change, which is for methods that accept every user and need no permission"


def _deadline_faults(policy: MethodPolicy) -> Iterable[str]:
    default, longest = (
        policy.default_deadline.ToNanoseconds(),
        policy.max_deadline.ToNanoseconds(),
    )
    if default <= 0:
        yield "neither its policy nor its service has a default_deadline"
    if longest < default or longest <= 0:
        yield "its max_deadline is missing, or shorter than its default_deadline"


def _rate_limit_faults(policy: MethodPolicy) -> Iterable[str]:
    for limit in policy.rate_limits:
        if limit.count < 1 or limit.window.seconds < 1 or limit.window.nanos:
            yield "a rate limit of its policy needs a count of at least 1 and a window of whole seconds"
        if limit.key not in RateLimitKey.values() or limit.key == RateLimitKey.RATE_LIMIT_KEY_UNSPECIFIED:
            yield "a rate limit of its policy has no key"
        if limit.key == RateLimitKey.RATE_LIMIT_KEY_CALLER and policy.access == Access.ACCESS_PUBLIC:
            yield "it is public, yet a rate limit of its policy counts by caller"
        if limit.key == RateLimitKey.RATE_LIMIT_KEY_ORGANIZATION and (policy.personal or not policy.permission):
            yield "a rate limit of its policy counts by organization, and its policy does not guarantee that one is active"
        if limit.key in BY_ACCOUNT and not limit.durable:
            yield "a rate limit of its policy counts by account, and so must be durable"
        if limit.failures_only and not limit.durable:
            yield "a rate limit of its policy counts failures only, and so must be durable"
    if len({limit.SerializeToString(deterministic=True) for limit in policy.rate_limits}) < len(policy.rate_limits):
        yield "two rate limits of its policy are the same"


def _account_field_faults(method: MethodDescriptor, policy: MethodPolicy) -> Iterable[str]:
    """A field marked `names_account` must be counted: a mark without effect would look like protection."""
    request = method.input_type
    marked = [field for field in request.fields if names_account(field)]
    if any(field.type != FieldDescriptor.TYPE_STRING or field.is_repeated for field in marked):
        yield "the field of its request that names an account must be a single string"
    if len(marked) > 1:
        yield "several fields of its request name an account, and only one can be counted"
    if any(_holds(field.message_type, names_account) for field in request.fields if field.message_type):
        yield "a field that names an account must be in the request itself, not in a message of it"
    if marked and method.client_streaming:
        yield "it streams its requests, and so none of them can name the account"
    if marked and not any(limit.key in BY_ACCOUNT for limit in policy.rate_limits):
        yield "a field of its request names an account, yet no rate limit of its policy counts by account"


def _error_faults(policy: MethodPolicy) -> Iterable[str]:
    for reason in policy.errors:
        if reason not in REASONS:
            yield f"its policy names error {reason}, which the contract does not have"


def _request_id_faults(method: MethodDescriptor) -> Iterable[str]:
    if REQUEST_ID not in method.input_type.fields_by_name:
        return
    if method.client_streaming or method.server_streaming:
        yield "it streams, and so cannot take a request_id"
    if _declared(method).access == Access.ACCESS_PUBLIC:
        yield "it is public, and so has no caller whose request_id could be remembered"
    if has_sensitive_field(method.input_type) or has_sensitive_field(method.output_type):
        yield "it takes a request_id, yet its messages have sensitive fields, which must not be stored"


def is_sensitive(field: FieldDescriptor) -> bool:
    return bool(field.GetOptions().Extensions[policy_pb2.sensitive])


def names_account(field: FieldDescriptor) -> bool:
    return bool(field.GetOptions().Extensions[policy_pb2.names_account])


def has_sensitive_field(message: Descriptor) -> bool:
    """Whether the message, or any message in it, has a field that is marked sensitive."""
    return _holds(message, is_sensitive)


def _holds(
    message: Descriptor, is_marked: Callable[[FieldDescriptor], bool], seen: frozenset[str] = frozenset()
) -> bool:
    if message.full_name in seen:
        return False
    seen |= {message.full_name}
    return any(
        is_marked(field) or (field.message_type is not None and _holds(field.message_type, is_marked, seen))
        for field in message.fields
    )
