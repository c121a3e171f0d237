"""The exceptions of failed calls: one for each status code, and a subclass for each reason of the contract.

`make stubs` generates this file from proto/accord/errors/v1/errors.proto and proto/accord/app/v1/reasons.proto.
"""

from collections.abc import Mapping
from typing import Final

import grpc

from accord_client.call_failed import CallFailed


class Cancelled(CallFailed):
    """The client cancelled the call."""

    code = grpc.StatusCode.CANCELLED
    reason = "CANCELLED"


class Unknown(CallFailed):
    """A call that ended with UNKNOWN."""

    code = grpc.StatusCode.UNKNOWN


class InvalidArgument(CallFailed):
    """A call that ended with INVALID_ARGUMENT."""

    code = grpc.StatusCode.INVALID_ARGUMENT


class DeadlineExceeded(CallFailed):
    """The call did not finish before its deadline."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED
    reason = "DEADLINE_EXCEEDED"


class NotFound(CallFailed):
    """A call that ended with NOT_FOUND."""

    code = grpc.StatusCode.NOT_FOUND


class AlreadyExists(CallFailed):
    """A row with the same unique value exists."""

    code = grpc.StatusCode.ALREADY_EXISTS
    reason = "ALREADY_EXISTS"


class PermissionDenied(CallFailed):
    """The caller lacks the permission or role, or the method does not accept this kind of credential."""

    code = grpc.StatusCode.PERMISSION_DENIED
    reason = "PERMISSION_DENIED"


class Unauthenticated(CallFailed):
    """A call that ended with UNAUTHENTICATED."""

    code = grpc.StatusCode.UNAUTHENTICATED


class ResourceExhausted(CallFailed):
    """A call that ended with RESOURCE_EXHAUSTED."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class FailedPrecondition(CallFailed):
    """A call that ended with FAILED_PRECONDITION."""

    code = grpc.StatusCode.FAILED_PRECONDITION


class Aborted(CallFailed):
    """A call that ended with ABORTED."""

    code = grpc.StatusCode.ABORTED


class OutOfRange(CallFailed):
    """A call that ended with OUT_OF_RANGE."""

    code = grpc.StatusCode.OUT_OF_RANGE


class Unimplemented(CallFailed):
    """A call that ended with UNIMPLEMENTED."""

    code = grpc.StatusCode.UNIMPLEMENTED


class Internal(CallFailed):
    """The server failed. Metadata: `error_id`, which the log line with the details contains."""

    code = grpc.StatusCode.INTERNAL
    reason = "INTERNAL"


class Unavailable(CallFailed):
    """The server or its database is unavailable. `RetryInfo` has the delay."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = "UNAVAILABLE"


class DataLoss(CallFailed):
    """A call that ended with DATA_LOSS."""

    code = grpc.StatusCode.DATA_LOSS


class MethodUnknown(Unimplemented):
    """The method does not exist."""

    reason = "METHOD_UNKNOWN"


class InvalidMessage(InvalidArgument):
    """The message does not parse, or its fields violate their rules. `BadRequest` lists the violations."""

    reason = "INVALID_MESSAGE"


class RateLimited(ResourceExhausted):
    """A rate limit is exceeded. `RetryInfo` has the delay, `QuotaFailure` the subject of the limit."""

    reason = "RATE_LIMITED"


class Conflict(Aborted):
    """Concurrent calls changed the same rows, in every attempt."""

    reason = "CONFLICT"


class ReferenceMissing(FailedPrecondition):
    """The request refers to a row that no longer exists."""

    reason = "REFERENCE_MISSING"


class CredentialMissing(Unauthenticated):
    """The method requires a credential, and the call has none."""

    reason = "CREDENTIAL_MISSING"


class CredentialInvalid(Unauthenticated):
    """The credential is malformed, unknown, expired or revoked. The error does not reveal which."""

    reason = "CREDENTIAL_INVALID"


class CredentialAmbiguous(Unauthenticated):
    """The call has more than one credential, or one header twice."""

    reason = "CREDENTIAL_AMBIGUOUS"


class SignInNotFresh(Unauthenticated):
    """The method requires a recent sign-in."""

    reason = "SIGN_IN_NOT_FRESH"


class CrossSiteRequest(PermissionDenied):
    """A page of another site made the browser send the session cookie, or sign in."""

    reason = "CROSS_SITE_REQUEST"


class PasswordChangeRequired(PermissionDenied):
    """The session was opened with a password that an administrator set, and the user has not changed it yet."""

    reason = "PASSWORD_CHANGE_REQUIRED"


class RequestIdReused(InvalidArgument):
    """The `request_id` was used before with another message."""

    reason = "REQUEST_ID_REUSED"


class PageTokenInvalid(InvalidArgument):
    """The `page_token` was modified, or belongs to another list, filter, order or caller."""

    reason = "PAGE_TOKEN_INVALID"


class EtagMismatch(Aborted):
    """The resource is not the version of the etag."""

    reason = "ETAG_MISMATCH"


class SignInRefused(Unauthenticated):
    """The e-mail address or the password is wrong. The error does not reveal which."""

    reason = "SIGN_IN_REFUSED"


class TokenInvalid(FailedPrecondition):
    """A mailed token, or the token of a second step, is unknown, expired or used. The error does not reveal which."""

    reason = "TOKEN_INVALID"


class EmailNotVerified(FailedPrecondition):
    """The e-mail address of the account is not verified. This method requires it, or the installation does at sign-in."""

    reason = "EMAIL_NOT_VERIFIED"


class PasswordWrong(PermissionDenied):
    """The current password is wrong."""

    reason = "PASSWORD_WRONG"


class CodeWrong(PermissionDenied):
    """The code of the second factor is wrong, expired or used."""

    reason = "CODE_WRONG"


class SecondFactorExists(AlreadyExists):
    """The account has a second factor already."""

    reason = "SECOND_FACTOR_EXISTS"


class SecondFactorNotFound(NotFound):
    """The account has no second factor, or none that waits for its confirmation."""

    reason = "SECOND_FACTOR_NOT_FOUND"


class SessionNotFound(NotFound):
    """The session does not exist or belongs to another account. Metadata: `session_id`."""

    reason = "SESSION_NOT_FOUND"


class TaskNotFound(NotFound):
    """The task does not exist or belongs to another owner. Metadata: `task_id`."""

    reason = "TASK_NOT_FOUND"


class ProviderNotFound(NotFound):
    """The installation has no provider with this name."""

    reason = "PROVIDER_NOT_FOUND"


class ProviderSignInFailed(Unauthenticated):
    """The provider's response is invalid: its state, code or tokens. The error does not reveal which."""

    reason = "PROVIDER_SIGN_IN_FAILED"


class ProviderEmailNotVerified(FailedPrecondition):
    """The provider did not verify the e-mail address, which a new account needs."""

    reason = "PROVIDER_EMAIL_NOT_VERIFIED"


class ProviderEmailInUse(AlreadyExists):
    """An account with the provider's e-mail address exists, and this identity is not linked to it."""

    reason = "PROVIDER_EMAIL_IN_USE"


class ProviderLinkedElsewhere(AlreadyExists):
    """The provider's identity is linked to another account."""

    reason = "PROVIDER_LINKED_ELSEWHERE"


class LinkedProviderNotFound(NotFound):
    """The linked provider does not exist or belongs to another account. Metadata: `linked_provider_id`."""

    reason = "LINKED_PROVIDER_NOT_FOUND"


class LastWayIn(FailedPrecondition):
    """It is the last way to sign in to the account."""

    reason = "LAST_WAY_IN"


class AuthorizationPending(FailedPrecondition):
    """`authorization_pending` of RFC 8628: the sign-in is neither approved nor denied. `RetryInfo` has the delay of the next
    poll."""

    reason = "AUTHORIZATION_PENDING"


class SlowDown(ResourceExhausted):
    """`slow_down` of RFC 8628: the device polled too early. The interval is now the delay of `RetryInfo`."""

    reason = "SLOW_DOWN"


class DeviceCodeExpired(FailedPrecondition):
    """`expired_token` of RFC 8628: the device code is unknown, expired or used."""

    reason = "DEVICE_CODE_EXPIRED"


class AuthorizationDenied(PermissionDenied):
    """`access_denied` of RFC 8628: the user denied the sign-in."""

    reason = "AUTHORIZATION_DENIED"


class UserCodeNotFound(NotFound):
    """The user code is unknown, expired, or already approved or denied."""

    reason = "USER_CODE_NOT_FOUND"


class OrganizationNotFound(NotFound):
    """The organization does not exist, is deleted, or the caller is not a member. Metadata: `organization_id`."""

    reason = "ORGANIZATION_NOT_FOUND"


class SlugTaken(AlreadyExists):
    """Another organization has the slug."""

    reason = "SLUG_TAKEN"


class MemberNotFound(NotFound):
    """The organization has no such member. Metadata: `account_id`."""

    reason = "MEMBER_NOT_FOUND"


class LastOwner(FailedPrecondition):
    """The organization would have no owner. Metadata: `organization_id`."""

    reason = "LAST_OWNER"


class InvitationNotFound(NotFound):
    """The active organization has no such invitation (metadata: `invitation_id`), or the token is unknown, used, expired,
    void, or was sent to another address."""

    reason = "INVITATION_NOT_FOUND"


class InvitationExists(AlreadyExists):
    """The address has a pending invitation."""

    reason = "INVITATION_EXISTS"


class TooManyInvitations(FailedPrecondition):
    """The organization has the maximum number of pending invitations."""

    reason = "TOO_MANY_INVITATIONS"


class MemberExists(AlreadyExists):
    """The account is a member already."""

    reason = "MEMBER_EXISTS"


class RoleNotFound(NotFound):
    """The active organization has no such role. Metadata: `role_id`."""

    reason = "ROLE_NOT_FOUND"


class RoleNameTaken(AlreadyExists):
    """Another role of the organization has the name."""

    reason = "ROLE_NAME_TAKEN"


class TooManyRoles(FailedPrecondition):
    """The organization has the maximum number of custom roles."""

    reason = "TOO_MANY_ROLES"


class ApiKeyNotFound(NotFound):
    """The active organization, or the caller outside of one, has no such API key. Metadata: `api_key_id`."""

    reason = "API_KEY_NOT_FOUND"


class ApiKeyEnded(FailedPrecondition):
    """The API key is revoked or expired. Metadata: `api_key_id`."""

    reason = "API_KEY_ENDED"


class TooManyApiKeys(FailedPrecondition):
    """The organization, or the caller outside of one, has the maximum number of API keys."""

    reason = "TOO_MANY_API_KEYS"


class ServiceAccountNotFound(NotFound):
    """The service account does not exist. Metadata: `service_account_id`."""

    reason = "SERVICE_ACCOUNT_NOT_FOUND"


class ClientInvalid(Unauthenticated):
    """`invalid_client` of RFC 6749: the client is unknown or disabled, or its secret is wrong. The error does not reveal
    which."""

    reason = "CLIENT_INVALID"


class AudienceNotAllowed(PermissionDenied):
    """`invalid_target` of RFC 8693: the service account does not have this audience."""

    reason = "AUDIENCE_NOT_ALLOWED"


class SubjectTokenInvalid(FailedPrecondition):
    """The subject token is not the token of an active session."""

    reason = "SUBJECT_TOKEN_INVALID"


class AccountNotFound(NotFound):
    """The account does not exist. Metadata: `account_id`."""

    reason = "ACCOUNT_NOT_FOUND"


class LastAdministrator(FailedPrecondition):
    """The installation would have no administrator who can sign in. Metadata: `account_id`."""

    reason = "LAST_ADMINISTRATOR"


class NotImpersonable(FailedPrecondition):
    """The account is the caller's own, an administrator's, or banned. Metadata: `account_id`."""

    reason = "NOT_IMPERSONABLE"


class NotImpersonating(FailedPrecondition):
    """The session is not an impersonation."""

    reason = "NOT_IMPERSONATING"


class AccountExists(AlreadyExists):
    """Another account, not deleted, has the e-mail address."""

    reason = "ACCOUNT_EXISTS"


class PasswordNotSettable(FailedPrecondition):
    """The account is the caller's own or an administrator's. Metadata: `account_id`."""

    reason = "PASSWORD_NOT_SETTABLE"


BY_CODE: Final[Mapping[grpc.StatusCode, type[CallFailed]]] = {
    grpc.StatusCode.CANCELLED: Cancelled,
    grpc.StatusCode.UNKNOWN: Unknown,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgument,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExists,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhausted,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPrecondition,
    grpc.StatusCode.ABORTED: Aborted,
    grpc.StatusCode.OUT_OF_RANGE: OutOfRange,
    grpc.StatusCode.UNIMPLEMENTED: Unimplemented,
    grpc.StatusCode.INTERNAL: Internal,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.DATA_LOSS: DataLoss,
}
BY_REASON: Final[Mapping[str, type[CallFailed]]] = {
    "INTERNAL": Internal,
    "METHOD_UNKNOWN": MethodUnknown,
    "INVALID_MESSAGE": InvalidMessage,
    "DEADLINE_EXCEEDED": DeadlineExceeded,
    "CANCELLED": Cancelled,
    "RATE_LIMITED": RateLimited,
    "UNAVAILABLE": Unavailable,
    "CONFLICT": Conflict,
    "REFERENCE_MISSING": ReferenceMissing,
    "ALREADY_EXISTS": AlreadyExists,
    "CREDENTIAL_MISSING": CredentialMissing,
    "CREDENTIAL_INVALID": CredentialInvalid,
    "CREDENTIAL_AMBIGUOUS": CredentialAmbiguous,
    "PERMISSION_DENIED": PermissionDenied,
    "SIGN_IN_NOT_FRESH": SignInNotFresh,
    "CROSS_SITE_REQUEST": CrossSiteRequest,
    "PASSWORD_CHANGE_REQUIRED": PasswordChangeRequired,
    "REQUEST_ID_REUSED": RequestIdReused,
    "PAGE_TOKEN_INVALID": PageTokenInvalid,
    "ETAG_MISMATCH": EtagMismatch,
    "SIGN_IN_REFUSED": SignInRefused,
    "TOKEN_INVALID": TokenInvalid,
    "EMAIL_NOT_VERIFIED": EmailNotVerified,
    "PASSWORD_WRONG": PasswordWrong,
    "CODE_WRONG": CodeWrong,
    "SECOND_FACTOR_EXISTS": SecondFactorExists,
    "SECOND_FACTOR_NOT_FOUND": SecondFactorNotFound,
    "SESSION_NOT_FOUND": SessionNotFound,
    "TASK_NOT_FOUND": TaskNotFound,
    "PROVIDER_NOT_FOUND": ProviderNotFound,
    "PROVIDER_SIGN_IN_FAILED": ProviderSignInFailed,
    "PROVIDER_EMAIL_NOT_VERIFIED": ProviderEmailNotVerified,
    "PROVIDER_EMAIL_IN_USE": ProviderEmailInUse,
    "PROVIDER_LINKED_ELSEWHERE": ProviderLinkedElsewhere,
    "LINKED_PROVIDER_NOT_FOUND": LinkedProviderNotFound,
    "LAST_WAY_IN": LastWayIn,
    "AUTHORIZATION_PENDING": AuthorizationPending,
    "SLOW_DOWN": SlowDown,
    "DEVICE_CODE_EXPIRED": DeviceCodeExpired,
    "AUTHORIZATION_DENIED": AuthorizationDenied,
    "USER_CODE_NOT_FOUND": UserCodeNotFound,
    "ORGANIZATION_NOT_FOUND": OrganizationNotFound,
    "SLUG_TAKEN": SlugTaken,
    "MEMBER_NOT_FOUND": MemberNotFound,
    "LAST_OWNER": LastOwner,
    "INVITATION_NOT_FOUND": InvitationNotFound,
    "INVITATION_EXISTS": InvitationExists,
    "TOO_MANY_INVITATIONS": TooManyInvitations,
    "MEMBER_EXISTS": MemberExists,
    "ROLE_NOT_FOUND": RoleNotFound,
    "ROLE_NAME_TAKEN": RoleNameTaken,
    "TOO_MANY_ROLES": TooManyRoles,
    "API_KEY_NOT_FOUND": ApiKeyNotFound,
    "API_KEY_ENDED": ApiKeyEnded,
    "TOO_MANY_API_KEYS": TooManyApiKeys,
    "SERVICE_ACCOUNT_NOT_FOUND": ServiceAccountNotFound,
    "CLIENT_INVALID": ClientInvalid,
    "AUDIENCE_NOT_ALLOWED": AudienceNotAllowed,
    "SUBJECT_TOKEN_INVALID": SubjectTokenInvalid,
    "ACCOUNT_NOT_FOUND": AccountNotFound,
    "LAST_ADMINISTRATOR": LastAdministrator,
    "NOT_IMPERSONABLE": NotImpersonable,
    "NOT_IMPERSONATING": NotImpersonating,
    "ACCOUNT_EXISTS": AccountExists,
    "PASSWORD_NOT_SETTABLE": PasswordNotSettable,
}
