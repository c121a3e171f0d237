"""What happens to each call on its way out, whatever kind of call it is."""

from typing import Any

from accord_client.aio.renewal import Renewal
from accord_client.call_details import Details, Outgoing
from accord_client.call_failed import CallFailed
from accord_client.contract import Methods
from accord_client.credentials import Header
from accord_client.errors import CredentialInvalid


class Outbound:
    """Gives calls a credential that is always the same, one that is renewed, or none."""

    def __init__(self, methods: Methods, fixed: Header | None = None, renewal: Renewal | None = None) -> None:
        self._methods = methods
        self._fixed = fixed
        self._renewal = renewal

    def outgoing(self, given: Any) -> Outgoing:
        return Outgoing(given, self._methods)

    async def send(self, outgoing: Outgoing) -> "Sent":
        if not outgoing.wants_credential:
            return Sent(outgoing, None, None)
        header = await self._renewal.header(outgoing.time_left()) if self._renewal else self._fixed
        return Sent(outgoing, header, self._renewal)


class Sent:
    """One attempt at a call, with the credential that it has."""

    def __init__(self, outgoing: Outgoing, header: Header | None, renewal: Renewal | None) -> None:
        self.details: Details = outgoing.details(header)
        self.request_id = outgoing.request_id
        self._header = header
        self._renewal = renewal

    @property
    def is_renewed(self) -> bool:
        return self._renewal is not None

    def told(self, failed: CallFailed) -> CallFailed:
        """Has the token renewed for the next attempt or call if it is what this one failed for."""
        if self.was_refused(failed) and self._renewal and self._header:
            self._renewal.refused(self._header)
        return failed

    def was_refused(self, failed: CallFailed) -> bool:
        """Whether our token was not accepted, and there may be a better one. Access is decided before anything else: a call
        that was refused for its credential did nothing."""
        return self.is_renewed and isinstance(failed, CredentialInvalid)
