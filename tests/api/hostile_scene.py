"""What two people have beside their tasks, so that an attack finds something to break."""

from datetime import timedelta

from accord.devices.v1.devices_pb2 import ApproveDeviceRequest, BeginDeviceSignInRequest, BeginDeviceSignInResponse
from accord.devices.v1.devices_pb2_grpc import DeviceServiceStub
from accord.second_factors.v1.second_factors_pb2 import CreateSecondFactorRequest
from accord.second_factors.v1.second_factors_pb2_grpc import SecondFactorServiceStub
from accord_api import account_tokens
from accord_api.account_tokens import CHANGE_EMAIL, RESET_PASSWORD, SECOND_STEP, VERIFY_EMAIL, Kind
from accord_auth.recovery_codes import new_recovery_codes, recovery_code_hash
from accord_auth.tokens import PROVIDER_SIGN_IN_PREFIX, new_token, token_hash
from accord_db.database import Database, Transaction
from accord_db.ids import uuid7
from accord_db.queries import providers, second_factors
from accord_db.queries.providers import EncryptedTokens
from tests.api.conftest import Client
from tests.factories import Person

ENOUGH = 3  # of what is used up when it is found


async def furnish(client: Client, me: Person, other: Person) -> list[str]:
    """What the attack is told of it. Of the other's tokens and codes it is told none."""
    async with client.database.transaction() as tx:
        known = [await linked_provider(tx, who) for who in (me, other)]
        await confirmed_second_factor(tx, other)
        for kind in (CHANGE_EMAIL, SECOND_STEP):
            await token(tx, other, kind)
    await provider_sign_in(client.database, other)
    await SecondFactorServiceStub(client.channel).CreateSecondFactor(CreateSecondFactorRequest(), metadata=me.headers)
    await approved_device(client, other)
    known.append((await approved_device(client, me)).device_code)
    for _ in range(ENOUGH):
        waiting = await device(client)
        known += [waiting.user_code, waiting.device_code, *await leaked_tokens(client)]
    return known


async def leaked_tokens(client: Client) -> list[str]:
    """Of somebody else: whoever has them may change that account by them."""
    careless = await client.somebody()
    async with client.database.transaction() as tx:
        return [await token(tx, careless, kind) for kind in (VERIFY_EMAIL, RESET_PASSWORD, SECOND_STEP)]


async def token(tx: Transaction, of: Person, kind: Kind) -> str:
    return await account_tokens.issue(tx, kind, account_id=of.account_id, email=of.email)


async def linked_provider(tx: Transaction, of: Person) -> str:
    linked = await providers.insert_linked_provider(
        tx,
        linked_provider_id=uuid7(),
        account_id=of.account_id,
        provider="corp",
        issuer="https://corp.example",
        subject=of.email,
        email=of.email,
        tokens=EncryptedTokens(b"sealed", None, None),
    )
    return str(linked.id)


async def provider_sign_in(database: Database, of: Person) -> None:
    await providers.insert_provider_sign_in(
        database,
        sign_in_id=uuid7(),
        token_hash=token_hash(new_token(PROVIDER_SIGN_IN_PREFIX)),
        provider="corp",
        redirect_uri="https://app.example/callback",
        lifetime=timedelta(minutes=10),
        account_id=of.account_id,
    )


async def confirmed_second_factor(tx: Transaction, of: Person) -> None:
    factor_id, codes = uuid7(), [recovery_code_hash(code) for code in new_recovery_codes()]
    await second_factors.insert_second_factor(
        tx, second_factor_id=factor_id, account_id=of.account_id, secret=b"sealed"
    )
    await second_factors.update_confirmed(tx, second_factor_id=factor_id, step=1)
    await second_factors.insert_recovery_codes(
        tx, second_factor_id=factor_id, ids=[uuid7() for _ in codes], code_hashes=[code for code in codes if code]
    )


async def device(client: Client) -> BeginDeviceSignInResponse:
    request = BeginDeviceSignInRequest(device_name="A television")
    return await DeviceServiceStub(client.channel).BeginDeviceSignIn(request)


async def approved_device(client: Client, by: Person) -> BeginDeviceSignInResponse:
    begun = await device(client)
    request = ApproveDeviceRequest(user_code=begun.user_code)
    await DeviceServiceStub(client.channel).ApproveDevice(request, metadata=by.headers)
    return begun
