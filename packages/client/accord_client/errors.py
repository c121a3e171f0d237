"""The exceptions of failed calls: one for each status code, and a subclass for each reason of the contract.

`make stubs` generates this file from proto/accord/errors/v1/errors.proto and proto/accord/app/v1/reasons.proto.
"""

from collections.abc import Mapping
from typing import Final

import grpc

from accord_client.call_failed import CallFailed


class Cancelled(CallFailed):
    """The caller ended the call."""

    code = grpc.StatusCode.CANCELLED
    reason = "CANCELLED"


class Unknown(CallFailed):
    """A call that ended with UNKNOWN."""

    code = grpc.StatusCode.UNKNOWN


class InvalidArgument(CallFailed):
    """A call that ended with INVALID_ARGUMENT."""

    code = grpc.StatusCode.INVALID_ARGUMENT


class DeadlineExceeded(CallFailed):
    """The message did not arrive, or the work was not done, before the deadline."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED
    reason = "DEADLINE_EXCEEDED"


class NotFound(CallFailed):
    """A call that ended with NOT_FOUND."""

    code = grpc.StatusCode.NOT_FOUND


class AlreadyExists(CallFailed):
    """Something with the same unique value exists."""

    code = grpc.StatusCode.ALREADY_EXISTS
    reason = "ALREADY_EXISTS"


class PermissionDenied(CallFailed):
    """The caller may not do this: the method is not for them, or not with this kind of credential."""

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
    """A fault of this server. `error_id` in the metadata finds the log line that has the rest."""

    code = grpc.StatusCode.INTERNAL
    reason = "INTERNAL"


class Unavailable(CallFailed):
    """The server or its database cannot take the call now. `RetryInfo` says when to try again."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = "UNAVAILABLE"


class DataLoss(CallFailed):
    """A call that ended with DATA_LOSS."""

    code = grpc.StatusCode.DATA_LOSS


class MethodUnknown(Unimplemented):
    """There is no such method here."""

    reason = "METHOD_UNKNOWN"


class InvalidMessage(InvalidArgument):
    """The message breaks the contract: bytes that do not parse, or fields that break their rules (`BadRequest` has all of them)."""

    reason = "INVALID_MESSAGE"


class RateLimited(ResourceExhausted):
    """A limit of the method's policy is reached. `RetryInfo` says how long to wait, `QuotaFailure` whose quota it is."""

    reason = "RATE_LIMITED"


class Conflict(Aborted):
    """Somebody else changed the same rows at the same time, several times in a row."""

    reason = "CONFLICT"


class ReferenceMissing(FailedPrecondition):
    """The request names something that does not exist any more."""

    reason = "REFERENCE_MISSING"


class CredentialMissing(Unauthenticated):
    """The method wants a credential and none was sent."""

    reason = "CREDENTIAL_MISSING"


class CredentialInvalid(Unauthenticated):
    """The credential is malformed, unknown, expired or revoked; which of these is not told."""

    reason = "CREDENTIAL_INVALID"


class CredentialAmbiguous(Unauthenticated):
    """More than one credential was sent, or one header twice."""

    reason = "CREDENTIAL_AMBIGUOUS"


class SignInNotFresh(Unauthenticated):
    """The method wants a recent sign-in."""

    reason = "SIGN_IN_NOT_FRESH"


class RequestIdReused(InvalidArgument):
    """The `request_id` was used before, with another message."""

    reason = "REQUEST_ID_REUSED"


class PageTokenInvalid(InvalidArgument):
    """The `page_token` was altered, or belongs to another list, filter, order or caller."""

    reason = "PAGE_TOKEN_INVALID"


class EtagMismatch(Aborted):
    """The resource was changed since its etag was read."""

    reason = "ETAG_MISMATCH"


class SignInRefused(Unauthenticated):
    """E-mail and password do not belong together; which of them is wrong is not told."""

    reason = "SIGN_IN_REFUSED"


class TokenInvalid(FailedPrecondition):
    """A token that was mailed, or that waits for a second step, is unknown, expired or used; which of these is not told."""

    reason = "TOKEN_INVALID"


class EmailNotVerified(FailedPrecondition):
    """The e-mail address of the account is not proved, which is asked for by this method, or at sign-in by this installation."""

    reason = "EMAIL_NOT_VERIFIED"


class PasswordWrong(PermissionDenied):
    """The present password, asked for once more, is wrong."""

    reason = "PASSWORD_WRONG"


class CodeWrong(PermissionDenied):
    """The code of the second factor is wrong, too old, or was used before."""

    reason = "CODE_WRONG"


class SecondFactorExists(AlreadyExists):
    """The account has a second factor already."""

    reason = "SECOND_FACTOR_EXISTS"


class SecondFactorNotFound(NotFound):
    """The account has no second factor, or none that waits to be confirmed."""

    reason = "SECOND_FACTOR_NOT_FOUND"


class SessionNotFound(NotFound):
    """There is no such session, or it is not the caller's. `session_id` in the metadata."""

    reason = "SESSION_NOT_FOUND"


class TaskNotFound(NotFound):
    """There is no such task, or it is not the caller's. `task_id` in the metadata."""

    reason = "TASK_NOT_FOUND"


class ProviderNotFound(NotFound):
    """No provider of that name is set up here."""

    reason = "PROVIDER_NOT_FOUND"


class ProviderSignInFailed(Unauthenticated):
    """What came back from the provider does not hold: its state, code or tokens. Which of them is not told."""

    reason = "PROVIDER_SIGN_IN_FAILED"


class ProviderEmailNotVerified(FailedPrecondition):
    """The provider does not vouch for an e-mail address, without which no account is made."""

    reason = "PROVIDER_EMAIL_NOT_VERIFIED"


class ProviderEmailInUse(AlreadyExists):
    """The provider vouches for an e-mail address that has an account here, which this identity is not linked to."""

    reason = "PROVIDER_EMAIL_IN_USE"


class ProviderLinkedElsewhere(AlreadyExists):
    """The identity at the provider is linked to another account."""

    reason = "PROVIDER_LINKED_ELSEWHERE"


class LinkedProviderNotFound(NotFound):
    """There is no such linked provider, or it is not the caller's. `linked_provider_id` in the metadata."""

    reason = "LINKED_PROVIDER_NOT_FOUND"


class LastWayIn(FailedPrecondition):
    """Without it nobody could sign in to the account any more."""

    reason = "LAST_WAY_IN"


class AuthorizationPending(FailedPrecondition):
    """`authorization_pending` of RFC 8628: nobody has approved or denied yet. `RetryInfo` says when to ask again."""

    reason = "AUTHORIZATION_PENDING"


class SlowDown(ResourceExhausted):
    """`slow_down` of RFC 8628: asked too soon. The interval has grown to what `RetryInfo` says."""

    reason = "SLOW_DOWN"


class DeviceCodeExpired(FailedPrecondition):
    """`expired_token` of RFC 8628: the device code is unknown, expired or used."""

    reason = "DEVICE_CODE_EXPIRED"


class AuthorizationDenied(PermissionDenied):
    """`access_denied` of RFC 8628: a person has denied it."""

    reason = "AUTHORIZATION_DENIED"


class UserCodeNotFound(NotFound):
    """The user code is unknown or expired, or somebody has decided on it."""

    reason = "USER_CODE_NOT_FOUND"


class OrganizationNotFound(NotFound):
    """There is no such organization, it is deleted, or the caller does not belong to it. `organization_id` in the metadata."""

    reason = "ORGANIZATION_NOT_FOUND"


class SlugTaken(AlreadyExists):
    """Another organization has the slug."""

    reason = "SLUG_TAKEN"


class MemberNotFound(NotFound):
    """The organization has no such member. `account_id` in the metadata."""

    reason = "MEMBER_NOT_FOUND"


class LastOwner(FailedPrecondition):
    """Without them nobody would own the organization. `organization_id` in the metadata."""

    reason = "LAST_OWNER"


class InvitationNotFound(NotFound):
    """There is no such invitation of the active organization (`invitation_id` in the metadata), or the token does not accept
    one: it is unknown, used, expired, void, or sent to somebody else."""

    reason = "INVITATION_NOT_FOUND"


class InvitationExists(AlreadyExists):
    """The address is invited already, and has not answered."""

    reason = "INVITATION_EXISTS"


class TooManyInvitations(FailedPrecondition):
    """As many invitations as an organization may have wait for an answer."""

    reason = "TOO_MANY_INVITATIONS"


class MemberExists(AlreadyExists):
    """Whoever is invited, or accepts, is a member already."""

    reason = "MEMBER_EXISTS"


class RoleNotFound(NotFound):
    """There is no such role, or it is not one of the active organization. `role_id` in the metadata."""

    reason = "ROLE_NOT_FOUND"


class RoleNameTaken(AlreadyExists):
    """The organization has another role of that name."""

    reason = "ROLE_NAME_TAKEN"


class TooManyRoles(FailedPrecondition):
    """The organization has as many roles of its own as it may."""

    reason = "TOO_MANY_ROLES"


class ApiKeyNotFound(NotFound):
    """There is no such API key, or it is not the organization's. `api_key_id` in the metadata."""

    reason = "API_KEY_NOT_FOUND"


class ApiKeyEnded(FailedPrecondition):
    """The API key is revoked or has expired. `api_key_id` in the metadata."""

    reason = "API_KEY_ENDED"


class TooManyApiKeys(FailedPrecondition):
    """The organization has as many API keys as one may have."""

    reason = "TOO_MANY_API_KEYS"


class ServiceAccountNotFound(NotFound):
    """There is no such service account. `service_account_id` in the metadata."""

    reason = "SERVICE_ACCOUNT_NOT_FOUND"


class ClientInvalid(Unauthenticated):
    """`invalid_client` of RFC 6749: the service account is unknown or disabled, or its secret is wrong; which of these is not told."""

    reason = "CLIENT_INVALID"


class AudienceNotAllowed(PermissionDenied):
    """`invalid_target` of RFC 8693: the service account may not have tokens for this audience."""

    reason = "AUDIENCE_NOT_ALLOWED"


class SubjectTokenInvalid(FailedPrecondition):
    """The credential of the person is not that of a session that is good now."""

    reason = "SUBJECT_TOKEN_INVALID"


class AccountNotFound(NotFound):
    """There is no such account. `account_id` in the metadata."""

    reason = "ACCOUNT_NOT_FOUND"


class LastAdministrator(FailedPrecondition):
    """Without this administrator nobody would be left to run the installation. `account_id` in the metadata."""

    reason = "LAST_ADMINISTRATOR"


class NotImpersonable(FailedPrecondition):
    """Nobody acts as themselves, as an administrator, or as somebody who is kept out. `account_id` in the metadata."""

    reason = "NOT_IMPERSONABLE"


class NotImpersonating(FailedPrecondition):
    """The session that calls is its owner's own."""

    reason = "NOT_IMPERSONATING"


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
}
