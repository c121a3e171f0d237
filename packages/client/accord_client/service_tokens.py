"""The tokens of a service account, and when the next one is due."""

import time
from dataclasses import dataclass
from typing import Final

from accord.services.v1.services_pb2 import IssueTokenRequest, IssueTokenResponse
from accord_client.credentials import Header, ServiceAccount, bearer

_RENEWED_BEFORE_ITS_END: Final = 0.2  # of its lifetime: a minute for a token of five


@dataclass(frozen=True, slots=True)
class Token:
    """Its times are of this machine's monotonic clock: no two clocks have to agree."""

    header: Header
    due_at: float
    ends_at: float

    @classmethod
    def of(cls, answer: IssueTokenResponse, asked_at: float) -> "Token":
        lifetime = answer.expires_in.ToNanoseconds() / 1e9
        due_at = asked_at + lifetime * (1 - _RENEWED_BEFORE_ITS_END)
        return cls(bearer(answer.access_token), due_at, asked_at + lifetime)

    def is_due(self) -> bool:
        return time.monotonic() >= self.due_at

    def is_good(self) -> bool:
        return time.monotonic() < self.ends_at


def token_request(account: ServiceAccount) -> IssueTokenRequest:
    return IssueTokenRequest(
        client_id=account.client_id, client_secret=account.client_secret, audience=account.audience
    )
