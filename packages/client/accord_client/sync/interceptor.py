"""Adds ids, a deadline and a credential to each call, and repeats a call once if its token was rejected."""

from collections.abc import Callable
from typing import Any

import grpc

from accord_client.call_details import OutgoingCall
from accord_client.call_failed import CallFailed
from accord_client.contract import Methods
from accord_client.credentials import Header
from accord_client.errors import CredentialInvalid
from accord_client.sync.calls import InterceptedCall
from accord_client.sync.token_renewal import TokenRenewal

Continuation = Callable[[Any, Any], Any]


class CallInterceptor(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """Sends a fixed credential, the current token of a service account, or none."""

    def __init__(self, methods: Methods, fixed: Header | None = None, renewal: TokenRenewal | None = None) -> None:
        self._methods = methods
        self._fixed = fixed
        self._renewal = renewal

    def intercept_unary_unary(self, continuation: Continuation, client_call_details: Any, request: Any) -> Any:
        return self._call(continuation, client_call_details, request)

    def intercept_unary_stream(self, continuation: Continuation, client_call_details: Any, request: Any) -> Any:
        return self._call(continuation, client_call_details, request)

    def intercept_stream_unary(
        self, continuation: Continuation, client_call_details: Any, request_iterator: Any
    ) -> Any:
        return self._stream(continuation, client_call_details, request_iterator)

    def intercept_stream_stream(
        self, continuation: Continuation, client_call_details: Any, request_iterator: Any
    ) -> Any:
        return self._stream(continuation, client_call_details, request_iterator)

    def _call(self, continuation: Continuation, caller_details: Any, request: Any) -> InterceptedCall:
        outgoing = OutgoingCall(caller_details, self._methods)
        request = outgoing.request(request)
        header = self._header(outgoing)

        def retry(failed: CallFailed) -> Any | None:
            """Safe, because a call whose credential was rejected did nothing."""
            if not self._drop_rejected_token(failed, header):
                return None
            return continuation(outgoing.details(self._header(outgoing)), request)

        return InterceptedCall(continuation(outgoing.details(header), request), outgoing.request_id, retry)

    def _stream(self, continuation: Continuation, caller_details: Any, requests: Any) -> InterceptedCall:
        """A consumed request iterator cannot be repeated, so only the next call has a new token."""
        outgoing = OutgoingCall(caller_details, self._methods)
        header = self._header(outgoing)

        def renew_only(failed: CallFailed) -> None:
            self._drop_rejected_token(failed, header)

        return InterceptedCall(continuation(outgoing.details(header), requests), outgoing.request_id, renew_only)

    def _header(self, outgoing: OutgoingCall) -> Header | None:
        if not outgoing.needs_credential:
            return None
        return self._renewal.header(outgoing.time_left()) if self._renewal else self._fixed

    def _drop_rejected_token(self, failed: CallFailed, header: Header | None) -> bool:
        """True if the server rejected the token. The next attempt or call renews it."""
        if self._renewal is None or header is None or not isinstance(failed, CredentialInvalid):
            return False
        self._renewal.reject(header)
        return True
