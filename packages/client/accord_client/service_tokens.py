"""The tokens of a service account and when they are due for renewal."""

import time
from dataclasses import dataclass
from typing import Final

from accord.services.v1.services_pb2 import IssueTokenRequest, IssueTokenResponse
from accord_client.credentials import Header, ServiceAccount, bearer

_RENEWED_BEFORE_END: Final = 0.2  # of the lifetime: 1 minute of 5


@dataclass(frozen=True, slots=True)
class Token:
    """Times are in seconds of this machine's monotonic clock, so clocks need not agree."""

    header: Header
    due_at: float
    expires_at: float

    @classmethod
    def of(cls, response: IssueTokenResponse, requested_at: float) -> "Token":
        lifetime = response.expires_in.ToNanoseconds() / 1e9
        due_at = requested_at + lifetime * (1 - _RENEWED_BEFORE_END)
        return cls(bearer(response.access_token), due_at, requested_at + lifetime)

    def is_due(self) -> bool:
        return time.monotonic() >= self.due_at

    def is_valid(self) -> bool:
        return time.monotonic() < self.expires_at


def token_request(account: ServiceAccount) -> IssueTokenRequest:
    return IssueTokenRequest(
        client_id=account.client_id, client_secret=account.client_secret, audience=account.audience
    )
