"""One provider as an installation names it."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ProviderSettings:
    """`issuer` is where its metadata is discovered, and who must have signed what it says."""

    name: str
    display_name: str
    issuer: str
    client_id: str
    client_secret: str = field(repr=False)
    scopes: tuple[str, ...] = ("openid", "email", "profile")
    # What else it wants to be asked at its authorization endpoint.
    parameters: Mapping[str, str] = field(default_factory=dict)
