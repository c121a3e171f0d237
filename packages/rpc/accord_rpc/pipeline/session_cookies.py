"""Sessions in cookies, for the protocols that browsers speak. Opt-in: without this stage a cookie has no meaning."""

from collections.abc import Collection
from datetime import UTC
from typing import Any, Final, cast

from google.protobuf.descriptor import Descriptor
from grpc_interceptor.server import AsyncServerInterceptor

from accord.errors.v1.errors_pb2 import Reason
from accord_rpc.call import Context, call
from accord_rpc.errors import RpcError
from accord_rpc.fields import is_timestamp
from accord_rpc.interceptor import Next
from accord_rpc.policy import Method
from accord_rpc.protocols.context import ProtocolContext
from accord_rpc.protocols.cookies import clear_cookie, is_from_another_site, session_tokens, set_cookie
from accord_rpc.protocols.rest.http_rules import field_at

_FIELD: Final = "session_token"
_EXPIRES_AT: Final = "session.expires_at"


class SessionCookieInterceptor(AsyncServerInterceptor):
    """Stands outside the stage that decides access. A session cookie becomes the header `authorization`, so that every rule about
    credentials applies to it: together with another credential it is ambiguous.

    A response with a `session_token` sets the cookie, and leaves the token out. Other sites cannot make calls with the cookie,
    nor sign the user in to another account."""

    def __init__(self, method: Method, allowed_origins: Collection[str]) -> None:
        response = cast(Descriptor, method.response.DESCRIPTOR)
        self._origins = frozenset(allowed_origins)
        self._response = method.response
        self._safe = method.safe
        self._opens = _FIELD in response.fields_by_name
        self._ends = method.ends_session
        if self._opens:
            _check_expiry(response)

    async def intercept(
        self,
        method: Next,
        request_or_iterator: object,
        context: Context,
        method_name: str,
    ) -> bytes | None:
        if not isinstance(context, ProtocolContext) or context.response_headers is None:
            return await method(request_or_iterator, context)
        if tokens := session_tokens(context.cookie):
            self._admit(has_cookie=True)
            current = call()
            current.headers = [*current.headers, *(("authorization", f"Bearer {token}") for token in tokens)]
        elif self._opens:
            self._admit(has_cookie=False)
        response = await method(request_or_iterator, context)
        if self._opens and response is not None:
            response = self._without_token(response, context.response_headers)
        if self._ends:
            context.response_headers.append(clear_cookie())
        return response

    def _admit(self, *, has_cookie: bool) -> None:
        from_another_site = is_from_another_site(call().headers, self._origins)
        if from_another_site is None:
            # Every browser sends `Origin` with a POST. Without a cookie, the client is another program that signs in.
            from_another_site = has_cookie and not self._safe
        if from_another_site:
            raise RpcError(Reason.REASON_CROSS_SITE_REQUEST)

    def _without_token(self, response: bytes, headers: list[tuple[bytes, bytes]]) -> bytes:
        message: Any = self._response.FromString(response)
        if not message.session_token:  # the sign-in needs another step
            return response
        headers.append(set_cookie(message.session_token, message.session.expires_at.ToDatetime(tzinfo=UTC)))
        message.session_token = ""
        return cast(bytes, message.SerializeToString())


def _check_expiry(response: Descriptor) -> None:
    fields = field_at(response, _EXPIRES_AT)
    if fields is None or not is_timestamp(fields[-1]):
        raise TypeError(
            f"{response.full_name} has a {_FIELD}, and so must have a Timestamp {_EXPIRES_AT} for its cookie"
        )
