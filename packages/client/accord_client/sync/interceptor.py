"""What happens to each call on its way out, and to what comes back."""

from collections.abc import Callable
from typing import Any

import grpc

from accord_client.call_details import Outgoing
from accord_client.call_failed import CallFailed
from accord_client.contract import Methods
from accord_client.credentials import Header
from accord_client.errors import CredentialInvalid
from accord_client.sync.calls import Answers
from accord_client.sync.renewal import Renewal

Continuation = Callable[[Any, Any], Any]


class CallInterceptor(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """Sends a credential that is always the same, one that is renewed, or none."""

    def __init__(self, methods: Methods, fixed: Header | None = None, renewal: Renewal | None = None) -> None:
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

    def _call(self, continuation: Continuation, given: Any, request: Any) -> Answers:
        outgoing = Outgoing(given, self._methods)
        request = outgoing.request(request)
        header = self._header(outgoing)

        def again(failed: CallFailed) -> Any | None:
            """Access is decided before anything else, so that a call which was refused for its credential did nothing."""
            if not self._is_refused(failed, header):
                return None
            return continuation(outgoing.details(self._header(outgoing)), request)

        return Answers(continuation(outgoing.details(header), request), outgoing.request_id, again)

    def _stream(self, continuation: Continuation, given: Any, requests: Any) -> Answers:
        """The requests cannot be had twice, and so there is no second time; but the next call has another credential."""
        outgoing = Outgoing(given, self._methods)
        header = self._header(outgoing)

        def never_again(failed: CallFailed) -> None:
            self._is_refused(failed, header)

        return Answers(continuation(outgoing.details(header), requests), outgoing.request_id, never_again)

    def _header(self, outgoing: Outgoing) -> Header | None:
        if not outgoing.wants_credential:
            return None
        return self._renewal.header(outgoing.time_left()) if self._renewal else self._fixed

    def _is_refused(self, failed: CallFailed, header: Header | None) -> bool:
        """Whether it was our token that was not accepted, and there may be a better one."""
        if self._renewal is None or header is None or not isinstance(failed, CredentialInvalid):
            return False
        self._renewal.refused(header)
        return True
