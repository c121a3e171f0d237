"""Identities at OpenID Connect providers, and pending sign-ins with them."""

from datetime import datetime
from typing import Final, Literal, get_args
from uuid import UUID

from sqlalchemy import ARRAY, CheckConstraint, ForeignKey, String, UniqueConstraint, func
from sqlalchemy.orm import Mapped, mapped_column

from accord_db.engine.model import CreatedAt, Id, Model, one_of
from accord_db.engine.row_level_security import tenant_exempt

RefreshFailure = Literal["no_refresh_token", "expired", "refused", "invalid_response"]
REFRESH_FAILURES: Final = get_args(RefreshFailure)


class LinkedProvider(Model):
    """An identity that can sign in to an account. Issuer and subject identify it, never the e-mail address."""

    __tablename__ = "linked_providers"

    id: Mapped[Id]
    created_at: Mapped[CreatedAt]
    account_id: Mapped[UUID] = mapped_column(ForeignKey("accounts.id", ondelete="CASCADE"), index=True)
    provider: Mapped[str] = mapped_column(String(50))
    issuer: Mapped[str]
    subject: Mapped[str]
    email: Mapped[str | None] = mapped_column(String(254))
    last_used_at: Mapped[datetime] = mapped_column(server_default=func.now())
    # Encrypted (accord_auth.encryption).
    access_token: Mapped[bytes | None] = mapped_column(info={"sensitive": True})
    refresh_token: Mapped[bytes | None] = mapped_column(info={"sensitive": True})
    access_token_expires_at: Mapped[datetime | None]
    # None if the provider does not specify it.
    refresh_token_expires_at: Mapped[datetime | None]
    # Granted with the tokens. Empty if a release stored them that did not know the scopes.
    scopes: Mapped[list[str]] = mapped_column(ARRAY(String(255)), server_default="{}")
    # Why the last refresh failed. None if it did not.
    refresh_failure: Mapped[str | None] = mapped_column(one_of(*REFRESH_FAILURES, name="refresh_failure"))
    # One process refreshes the tokens until this time. It holds no transaction meanwhile.
    refreshing_until: Mapped[datetime | None]

    __table_args__ = (
        UniqueConstraint("issuer", "subject"),
        tenant_exempt("belongs to a person, and sign-in finds it before the caller is known"),
    )


class ProviderSignIn(Model):
    """A pending sign-in or link. State, nonce and PKCE verifier are derived from its token, and not stored."""

    __tablename__ = "provider_sign_ins"

    id: Mapped[Id]
    created_at: Mapped[CreatedAt]
    # SHA-256 of the token, which only the client that began the sign-in has.
    token_hash: Mapped[bytes] = mapped_column(unique=True, info={"sensitive": True})
    provider: Mapped[str] = mapped_column(String(50))
    redirect_uri: Mapped[str]
    # The account to link the identity to. None for a sign-in.
    account_id: Mapped[UUID | None] = mapped_column(ForeignKey("accounts.id", ondelete="CASCADE"), index=True)
    expires_at: Mapped[datetime] = mapped_column(index=True)
    used_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint("octet_length(token_hash) = 32", name="token_hash_is_sha256"),
        tenant_exempt("found by its token before the caller is known"),
    )
