"""DeviceService: signs in devices without a browser (RFC 8628)."""

from datetime import timedelta
from typing import Final
from urllib.parse import urlencode

from google.protobuf.duration_pb2 import Duration

from accord.devices.v1 import devices_pb2 as pb
from accord.devices.v1.devices_pb2_grpc import DeviceServiceServicer
from accord.errors.v1.errors_pb2 import Reason
from accord_api.dependencies import Dependencies
from accord_api.outbox import Mail
from accord_api.session_messages import to_session
from accord_api.sign_ins import is_banned
from accord_auth.tokens import DEVICE_PREFIX, new_token, token_hash, well_formed
from accord_auth.user_codes import UserCodes, new_user_code
from accord_db import schema
from accord_db.engine.ids import uuid7
from accord_db.queries import accounts, devices
from accord_db.queries.devices import Poll
from accord_rpc.call import Context, call
from accord_rpc.caller import caller
from accord_rpc.errors import RpcError
from accord_rpc.messages import MessageMapper, to_timestamp

_LIFETIME: Final = timedelta(minutes=10)
_INTERVAL_SECONDS: Final = 5
_SLOWER_BY_SECONDS: Final = 5  # RFC 8628, 3.5
# There are 20^8 user codes: a random one is almost never taken.
_DRAWS: Final = 5

_to_device_sign_in: Final = MessageMapper(pb.DeviceSignIn)


class DeviceService(DeviceServiceServicer):
    def __init__(self, dependencies: Dependencies) -> None:
        self._db = dependencies.database
        self._sessions = dependencies.sessions
        self._outbox = dependencies.outbox
        self._user_codes = UserCodes(dependencies.secret_key)
        self._verification_uri = dependencies.rules.verification_uri

    async def BeginDeviceSignIn(
        self, request: pb.BeginDeviceSignInRequest, context: Context
    ) -> pb.BeginDeviceSignInResponse:
        device_code = new_token(DEVICE_PREFIX)
        user_code, sign_in = await self._begin(device_code, request.device_name)
        call().note(target=sign_in.id)
        return pb.BeginDeviceSignInResponse(
            device_code=device_code,
            user_code=user_code,
            verification_uri=self._verification_uri,
            verification_uri_complete=f"{self._verification_uri}?{urlencode({'user_code': user_code})}",
            expires_at=to_timestamp(sign_in.expires_at),
            interval=Duration(seconds=sign_in.interval_seconds),
        )

    async def PollDeviceSignIn(
        self, request: pb.PollDeviceSignInRequest, context: Context
    ) -> pb.PollDeviceSignInResponse:
        poll = await self._poll(request.device_code)
        _require_approved(poll)
        call().note(account_id=poll.account_id)
        token, session = await self._open_session(poll)
        return pb.PollDeviceSignInResponse(session_token=token, session=to_session(session))

    async def GetDeviceSignIn(self, request: pb.GetDeviceSignInRequest, context: Context) -> pb.GetDeviceSignInResponse:
        sign_in = await devices.get_pending_device_sign_in(
            self._db, user_code_hash=self._user_codes.hash(request.user_code)
        )
        if sign_in is None:
            raise RpcError(Reason.REASON_USER_CODE_NOT_FOUND)
        return pb.GetDeviceSignInResponse(device_sign_in=_to_device_sign_in(sign_in))

    async def ApproveDevice(self, request: pb.ApproveDeviceRequest, context: Context) -> pb.ApproveDeviceResponse:
        me = caller()
        async with self._db.transaction() as tx:
            account = await accounts.get_account(tx, account_id=me.account_id)
            sign_in = await devices.approve_device_sign_in(
                tx,
                user_code_hash=self._user_codes.hash(request.user_code),
                account_id=me.account_id,
                session_id=me.session_id,
            )
            if account is None or sign_in is None:
                raise RpcError(Reason.REASON_USER_CODE_NOT_FOUND)
            await self._outbox.post(
                tx,
                Mail.DEVICE_APPROVED,
                to=account.email,
                display_name=account.display_name,
                device_name=sign_in.device_name,
                peer=sign_in.peer,
            )
        call().note(target=sign_in.id)
        return pb.ApproveDeviceResponse()

    async def DenyDevice(self, request: pb.DenyDeviceRequest, context: Context) -> pb.DenyDeviceResponse:
        async with self._db.transaction() as tx:
            sign_in = await devices.deny_device_sign_in(
                tx,
                user_code_hash=self._user_codes.hash(request.user_code),
                account_id=caller().account_id,
            )
        if sign_in is None:
            raise RpcError(Reason.REASON_USER_CODE_NOT_FOUND)
        call().note(target=sign_in.id)
        return pb.DenyDeviceResponse()

    async def _begin(self, device_code: str, device_name: str) -> tuple[str, schema.DeviceSignIn]:
        for _ in range(_DRAWS):
            user_code = new_user_code()
            async with self._db.transaction() as tx:
                sign_in = await devices.insert_device_sign_in(
                    tx,
                    sign_in_id=uuid7(),
                    device_code_hash=token_hash(device_code),
                    user_code_hash=self._user_codes.hash(user_code),
                    device_name=device_name,
                    peer=call().peer,
                    user_agent=call().user_agent,
                    lifetime=_LIFETIME,
                    interval_seconds=_INTERVAL_SECONDS,
                )
            if sign_in is not None:
                return user_code, sign_in
        raise RuntimeError(f"{_DRAWS} user codes in a row were taken")

    async def _poll(self, device_code: str) -> Poll:
        if not well_formed(device_code, DEVICE_PREFIX):
            raise RpcError(Reason.REASON_DEVICE_CODE_EXPIRED)
        # Before any transaction of this call, so that it is committed with every status: SLOW_DOWN extends the interval.
        poll = await devices.poll_device_sign_in(
            self._db, device_code_hash=token_hash(device_code), slow_down_seconds=_SLOWER_BY_SECONDS
        )
        if poll is None:
            raise RpcError(Reason.REASON_DEVICE_CODE_EXPIRED)
        call().note(target=poll.id)
        return poll

    async def _open_session(self, approved: Poll) -> tuple[str, schema.Session]:
        """Locks the account, as a ban, a deletion and the end of all sessions do: either they find this session, or it is
        not opened."""
        assert approved.account_id is not None
        async with self._db.transaction() as tx:
            account = await accounts.get_account_locked(tx, account_id=approved.account_id)
            if (
                account is None
                or is_banned(account, self._db.clock)
                or not await devices.use_device_sign_in(tx, sign_in_id=approved.id)
            ):
                raise RpcError(Reason.REASON_DEVICE_CODE_EXPIRED)
            return await self._sessions.open(
                tx,
                account.id,
                peer=call().peer,
                user_agent=call().user_agent,
                authenticated_at=approved.authenticated_at,
            )


def _require_approved(poll: Poll) -> None:
    if poll.too_soon:
        raise RpcError(Reason.REASON_SLOW_DOWN, retry_after=poll.interval_seconds)
    if poll.denied_at is not None:
        raise RpcError(Reason.REASON_AUTHORIZATION_DENIED)
    if poll.approved_at is None:
        raise RpcError(Reason.REASON_AUTHORIZATION_PENDING, retry_after=poll.interval_seconds)
