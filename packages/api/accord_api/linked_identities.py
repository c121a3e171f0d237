"""Accounts and the provider identities linked to them. Issuer and subject identify one, never an e-mail address."""

from typing import NamedTuple
from uuid import UUID

from accord.errors.v1.errors_pb2 import Reason
from accord_api.outbox import Mail, Outbox
from accord_api.own_account import get_own_account_locked
from accord_auth.providers import Proof, Providers
from accord_db.engine.database import Transaction
from accord_db.engine.ids import uuid7
from accord_db.queries import accounts, providers
from accord_db.schema import Account, LinkedProvider
from accord_rpc.call import call
from accord_rpc.errors import RpcError

_LONGEST_NAME = 100


class Entered(NamedTuple):
    account: Account
    is_new: bool


class LinkedIdentities:
    """`link_by_email`: link a new identity to the account with its address, if both the provider and Accord have verified
    the address."""

    def __init__(self, providers: Providers, outbox: Outbox, *, link_by_email: bool) -> None:
        self._providers = providers
        self._outbox = outbox
        self._link_by_email = link_by_email

    async def enter(self, tx: Transaction, proof: Proof) -> Entered:
        """The account to sign in to; creates it if the identity is new. Raises SIGN_IN_REFUSED, PROVIDER_EMAIL_NOT_VERIFIED,
        PROVIDER_EMAIL_IN_USE, and PROVIDER_SIGN_IN_FAILED if the identity is being unlinked."""
        linked = await self._find(tx, proof)
        if linked is None:
            return await self._enter_first(tx, proof)
        account = await _account(tx, linked.account_id)
        if await self._renew(tx, linked, proof) is None:
            raise RpcError(Reason.REASON_PROVIDER_SIGN_IN_FAILED)
        return Entered(account, is_new=False)

    async def link(self, tx: Transaction, proof: Proof, *, account_id: UUID) -> LinkedProvider:
        """Links the identity, or updates it if it is linked to this account. Raises PROVIDER_LINKED_ELSEWHERE."""
        linked = await self._find(tx, proof)
        if linked is not None and linked.account_id != account_id:
            raise RpcError(Reason.REASON_PROVIDER_LINKED_ELSEWHERE)
        account = await get_own_account_locked(tx)
        renewed = await self._renew(tx, linked, proof) if linked is not None else None
        return renewed or await self._link_and_notify(tx, account, proof)

    async def unlink(self, tx: Transaction, linked_provider_id: UUID, *, account_id: UUID) -> None:
        """Raises LINKED_PROVIDER_NOT_FOUND, LAST_WAY_IN."""
        # The lock makes a concurrent unlink see the remaining identities.
        account = await get_own_account_locked(tx)
        rows = {row.id: row for row in await providers.list_linked_providers(tx, account_id=account_id)}
        if (unlinked := rows.pop(linked_provider_id, None)) is None:
            raise RpcError(Reason.REASON_LINKED_PROVIDER_NOT_FOUND, linked_provider_id=str(linked_provider_id))
        if account.password_hash is None and not any(
            row.provider in self._providers.providers for row in rows.values()
        ):
            raise RpcError(Reason.REASON_LAST_WAY_IN)
        await providers.delete_linked_provider(tx, linked_provider_id=linked_provider_id, account_id=account_id)
        await self._notify(tx, Mail.PROVIDER_UNLINKED, account, unlinked.provider)

    async def _find(self, tx: Transaction, proof: Proof) -> LinkedProvider | None:
        """Locked: no other transaction links the identity until this one ends."""
        issuer, subject = proof.identity.issuer, proof.identity.subject
        await providers.lock_identity(tx, issuer=issuer, subject=subject)
        return await providers.get_linked_provider(tx, issuer=issuer, subject=subject)

    async def _enter_first(self, tx: Transaction, proof: Proof) -> Entered:
        email = proof.identity.email
        if email is None or not proof.identity.email_verified:
            raise RpcError(Reason.REASON_PROVIDER_EMAIL_NOT_VERIFIED)
        account = await accounts.insert_account(
            tx,
            account_id=uuid7(),
            email=email,
            display_name=proof.identity.name or email.partition("@")[0][:_LONGEST_NAME],
            password_hash=None,
            image_url=proof.identity.image_url,
        )
        if account is None:
            return Entered(await self._link_by_address(tx, proof, email), is_new=False)
        await accounts.update_email_verified(tx, account_id=account.id, email=account.email)
        await self._insert(tx, account, proof)
        return Entered(account, is_new=True)

    async def _link_by_address(self, tx: Transaction, proof: Proof, email: str) -> Account:
        known = await accounts.get_account_by_email(tx, email=email)
        # An attacker may have signed up with the address of a victim, to wait for this sign-in.
        if known is None or not self._link_by_email or known.email_verified_at is None:
            raise RpcError(Reason.REASON_PROVIDER_EMAIL_IN_USE)
        account = await _account(tx, known.id)
        if account.email != known.email:  # changed concurrently
            raise RpcError(Reason.REASON_PROVIDER_EMAIL_IN_USE)
        await self._link_and_notify(tx, account, proof)
        return account

    async def _link_and_notify(self, tx: Transaction, account: Account, proof: Proof) -> LinkedProvider:
        linked = await self._insert(tx, account, proof)
        await self._notify(tx, Mail.PROVIDER_LINKED, account, linked.provider)
        return linked

    async def _insert(self, tx: Transaction, account: Account, proof: Proof) -> LinkedProvider:
        row_id = uuid7()
        return await providers.insert_linked_provider(
            tx,
            linked_provider_id=row_id,
            account_id=account.id,
            provider=proof.settings.name,
            issuer=proof.identity.issuer,
            subject=proof.identity.subject,
            email=proof.identity.email,
            tokens=self._providers.encrypted(proof, row_id=row_id, account_id=account.id),
        )

    async def _renew(self, tx: Transaction, linked: LinkedProvider, proof: Proof) -> LinkedProvider | None:
        """Stores the provider's current e-mail address and tokens. None if the identity was unlinked meanwhile."""
        return await providers.update_linked_provider(
            tx,
            linked_provider_id=linked.id,
            provider=proof.settings.name,
            email=proof.identity.email,
            tokens=self._providers.encrypted(proof, row_id=linked.id, account_id=linked.account_id),
        )

    async def _notify(self, tx: Transaction, mail: Mail, account: Account, provider: str) -> None:
        settings = self._providers.providers.get(provider)
        name = settings.display_name if settings else provider
        await self._outbox.post(tx, mail, to=account.email, display_name=account.display_name, provider=name)


async def _account(tx: Transaction, account_id: UUID) -> Account:
    """Locked. Opening a session checks for a ban. Raises SIGN_IN_REFUSED if the account is deleted."""
    call().note(account_id=account_id)
    account = await accounts.get_account_locked(tx, account_id=account_id)
    if account is None:
        raise RpcError(Reason.REASON_SIGN_IN_REFUSED)
    return account
