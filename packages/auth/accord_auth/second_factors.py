"""Second factors: an authenticator app (TOTP), or recovery codes instead. Each code works once."""

from uuid import UUID

from accord.errors.v1.errors_pb2 import Reason
from accord_auth import totp
from accord_auth.encryption import Keyring, Place
from accord_auth.recovery_codes import new_recovery_codes, recovery_code_hash
from accord_db.engine.database import Executor, Transaction
from accord_db.engine.ids import uuid7
from accord_db.queries import second_factors
from accord_db.queries.second_factors import SecondFactorNow
from accord_rpc.errors import RpcError


class SecondFactors:
    """The database's clock decides which code is current; the query that returns the secret also returns the time. So all
    gateways agree on which code is next and which was used."""

    def __init__(self, keys: Keyring) -> None:
        self._keys = keys

    async def is_enabled(self, db: Executor, account_id: UUID) -> bool:
        """Whether the account has a confirmed second factor."""
        return await second_factors.get_confirmed_second_factor(db, account_id=account_id) is not None

    async def verify(self, tx: Executor, account_id: UUID, *, code: str = "", recovery_code: str = "") -> bool:
        """Whether the code is right; then it is used up when the transaction commits. False without a confirmed factor.

        A wrong code writes nothing. If the call fails the code stays valid. Others that send the same code wait for the
        outcome."""
        if recovery_code:
            code_hash = recovery_code_hash(recovery_code)
            return code_hash is not None and await second_factors.use_recovery_code(
                tx, account_id=account_id, code_hash=code_hash
            )
        known = await second_factors.get_confirmed_second_factor(tx, account_id=account_id)
        step = self._step_of(code, known) if known else None
        if known is None or step is None:
            return False
        return await second_factors.use_step(tx, second_factor_id=known.factor.id, step=step)

    async def create(self, tx: Transaction, account_id: UUID) -> tuple[UUID, bytes]:
        """Returns the id and the secret of a factor to confirm, which replaces an unconfirmed one. Raises
        SECOND_FACTOR_EXISTS."""
        factor_id, secret = uuid7(), totp.new_secret()
        made = await second_factors.insert_second_factor(
            tx,
            second_factor_id=factor_id,
            account_id=account_id,
            secret=self._keys.encrypt(secret, _place(factor_id, account_id)),
        )
        if made is None:
            raise RpcError(Reason.REASON_SECOND_FACTOR_EXISTS)
        return factor_id, secret

    async def confirm(self, tx: Transaction, account_id: UUID, *, code: str) -> None:
        """Confirms the factor, so that sign-ins require it, and uses up the code. Raises SECOND_FACTOR_NOT_FOUND, CODE_WRONG."""
        waiting = await second_factors.get_unconfirmed_second_factor(tx, account_id=account_id)
        if waiting is None:
            raise not_found()
        step = self._step_of(code, waiting)
        if step is None:
            raise RpcError(Reason.REASON_CODE_WRONG)
        if not await second_factors.confirm_second_factor(tx, second_factor_id=waiting.factor.id, step=step):
            raise not_found()  # confirmed or replaced since

    async def renew_recovery_codes(self, tx: Transaction, account_id: UUID) -> tuple[UUID, list[str]]:
        """Replaces the recovery codes. Returns the id of the factor and the codes. Raises SECOND_FACTOR_NOT_FOUND."""
        factor_id = await second_factors.lock_second_factor(tx, account_id=account_id)
        if factor_id is None:
            raise not_found()
        codes = new_recovery_codes()
        await second_factors.delete_recovery_codes(tx, second_factor_id=factor_id)
        await second_factors.insert_recovery_codes(
            tx,
            second_factor_id=factor_id,
            ids=[uuid7() for _ in codes],
            code_hashes=[code_hash for code in codes if (code_hash := recovery_code_hash(code))],
        )
        return factor_id, codes

    def _step_of(self, code: str, known: SecondFactorNow) -> int | None:
        secret = self._keys.decrypt(known.factor.secret, _place(known.factor.id, known.factor.account_id))
        return totp.step_of(code, secret, known.now)


def not_found() -> RpcError:
    return RpcError(Reason.REASON_SECOND_FACTOR_NOT_FOUND)


def _place(factor_id: UUID, account_id: UUID) -> Place:
    return Place("second_factors", "secret", factor_id, account_id)
