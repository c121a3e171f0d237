"""What a credential stands for, and whoever can tell: there is a finder for each kind."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple, Protocol, TypeAlias
from uuid import UUID

from accord.policy.v1.policy_pb2 import Credential
from accord_rpc.caller import Caller


class Authenticated(NamedTuple):
    """What a good credential stands for now."""

    caller: Caller
    # Of all that can change it: the credential, accounts, the organization. A notice names one of them.
    ids: tuple[UUID, ...]
    # When it stops being good, unless it is used before. None for never.
    good_until: datetime | None = None
    # Until when it may be remembered, if nothing is heard of it.
    kept_until: datetime | None = None


class Authenticator(Protocol):
    """Finds who is behind the credentials of one kind."""

    async def find(self, token: str) -> Authenticated | None:
        """None if it is not good, for whatever reason. What can be told without the database is told without it."""

    async def find_again(self, tokens: Sequence[str]) -> Mapping[str, Authenticated]:
        """Those of the tokens that are good now, whatever is remembered of them. It is no use of them."""


Finders: TypeAlias = Mapping[Credential.ValueType, Authenticator]
"""One for each kind of credential that this installation takes."""
