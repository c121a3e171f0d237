"""SecondFactorService: sets up an authenticator app with recovery codes."""

from accord.errors.v1.errors_pb2 import Reason
from accord.second_factors.v1 import second_factors_pb2 as pb
from accord.second_factors.v1.second_factors_pb2_grpc import SecondFactorServiceServicer
from accord_api.dependencies import Dependencies
from accord_api.outbox import Mail
from accord_api.own_account import get_own_account
from accord_auth.second_factors import not_found
from accord_auth.totp import otpauth_uri, secret_text
from accord_db.queries import second_factors
from accord_rpc.call import Context, call
from accord_rpc.caller import caller
from accord_rpc.errors import RpcError
from accord_rpc.messages import to_timestamp


class SecondFactorService(SecondFactorServiceServicer):
    def __init__(self, dependencies: Dependencies) -> None:
        self._db = dependencies.database
        self._second_factors = dependencies.second_factors
        self._outbox = dependencies.outbox

    async def GetSecondFactor(self, request: pb.GetSecondFactorRequest, context: Context) -> pb.GetSecondFactorResponse:
        found = await second_factors.get_second_factor_summary(self._db, account_id=caller().account_id)
        if found is None:
            raise not_found()
        return pb.GetSecondFactorResponse(
            second_factor=pb.SecondFactor(
                confirmed_at=to_timestamp(found.confirmed_at),
                recovery_codes_left=found.recovery_codes_left,
            )
        )

    async def CreateSecondFactor(
        self, request: pb.CreateSecondFactorRequest, context: Context
    ) -> pb.CreateSecondFactorResponse:
        async with self._db.transaction() as tx:
            me = await get_own_account(tx)
            if me.email_verified_at is None:
                raise RpcError(Reason.REASON_EMAIL_NOT_VERIFIED)
            factor_id, secret = await self._second_factors.create(tx, me.id)
        call().note(target=factor_id)
        return pb.CreateSecondFactorResponse(otpauth_uri=otpauth_uri(secret, me.email), secret=secret_text(secret))

    async def ConfirmSecondFactor(
        self, request: pb.ConfirmSecondFactorRequest, context: Context
    ) -> pb.ConfirmSecondFactorResponse:
        async with self._db.transaction() as tx:
            me = await get_own_account(tx)
            await self._second_factors.confirm(tx, me.id, code=request.code)
            factor_id, codes = await self._second_factors.renew_recovery_codes(tx, me.id)
            await self._outbox.post(tx, Mail.SECOND_FACTOR_ADDED, to=me.email, display_name=me.display_name)
        call().note(target=factor_id)
        return pb.ConfirmSecondFactorResponse(recovery_codes=codes)

    async def CreateRecoveryCodes(
        self, request: pb.CreateRecoveryCodesRequest, context: Context
    ) -> pb.CreateRecoveryCodesResponse:
        async with self._db.transaction() as tx:
            factor_id, codes = await self._second_factors.renew_recovery_codes(tx, caller().account_id)
        call().note(target=factor_id)
        return pb.CreateRecoveryCodesResponse(recovery_codes=codes)

    async def DeleteSecondFactor(
        self, request: pb.DeleteSecondFactorRequest, context: Context
    ) -> pb.DeleteSecondFactorResponse:
        async with self._db.transaction() as tx:
            me = await get_own_account(tx)
            factor_id = await second_factors.delete_second_factor(tx, account_id=me.id)
            if factor_id is None:
                raise not_found()
            await self._outbox.post(tx, Mail.SECOND_FACTOR_REMOVED, to=me.email, display_name=me.display_name)
        call().note(target=factor_id)
        return pb.DeleteSecondFactorResponse()
