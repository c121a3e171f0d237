"""Adds the credential to each attempt at a call, for all four kinds of call."""

from typing import Any

from accord_client.aio.token_renewal import TokenRenewal
from accord_client.call_details import CallDetails, OutgoingCall
from accord_client.call_failed import CallFailed
from accord_client.contract import Methods
from accord_client.credentials import Header
from accord_client.errors import CredentialInvalid


class Attempts:
    """Sends a fixed credential, the current token of a service account, or none."""

    def __init__(self, methods: Methods, fixed: Header | None = None, renewal: TokenRenewal | None = None) -> None:
        self._methods = methods
        self._fixed = fixed
        self._renewal = renewal

    def outgoing_call(self, caller_details: Any) -> OutgoingCall:
        return OutgoingCall(caller_details, self._methods)

    async def start(self, outgoing: OutgoingCall) -> "Attempt":
        if not outgoing.needs_credential:
            return Attempt(outgoing, None, None)
        header = await self._renewal.header(outgoing.time_left()) if self._renewal else self._fixed
        return Attempt(outgoing, header, self._renewal)


class Attempt:
    """One attempt at a call, with its credential."""

    def __init__(self, outgoing: OutgoingCall, header: Header | None, renewal: TokenRenewal | None) -> None:
        self.details: CallDetails = outgoing.details(header)
        self.request_id = outgoing.request_id
        self._header = header
        self._renewal = renewal

    @property
    def is_renewable(self) -> bool:
        return self._renewal is not None

    def drop_rejected_token(self, failed: CallFailed) -> None:
        """If the server rejected the token, the next attempt or call renews it."""
        if self.token_was_rejected(failed) and self._renewal and self._header:
            self._renewal.reject(self._header)

    def token_was_rejected(self, failed: CallFailed) -> bool:
        """Whether a renewed token may succeed. Repeating is safe: a call whose credential was rejected did nothing."""
        return self.is_renewable and isinstance(failed, CredentialInvalid)
