"""What two people and their organizations have beside their tasks, so that an attack finds something to break."""

from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from accord.devices.v1.devices_pb2 import ApproveDeviceRequest, BeginDeviceSignInRequest, BeginDeviceSignInResponse
from accord.devices.v1.devices_pb2_grpc import DeviceServiceStub
from accord.second_factors.v1.second_factors_pb2 import CreateSecondFactorRequest
from accord.second_factors.v1.second_factors_pb2_grpc import SecondFactorServiceStub
from accord_api import account_tokens
from accord_api.account_tokens import CHANGE_EMAIL, RESET_PASSWORD, SECOND_STEP, VERIFY_EMAIL, Kind
from accord_auth.recovery_codes import new_recovery_codes, recovery_code_hash
from accord_auth.tokens import PROVIDER_SIGN_IN_PREFIX, new_token, token_hash
from accord_db.engine.database import Database, Transaction
from accord_db.engine.ids import uuid7
from accord_db.queries import providers, second_factors
from accord_db.queries.providers import EncryptedTokens
from tests.api.conftest import Client
from tests.api.foreign import Owner, makers
from tests.api.services import AUDIENCE, new_service
from tests.api.world import World
from tests.factories import Person

ENOUGH = 3  # of what is used up when it is found
WRITTEN_BY_CALLS = {"audit_events", "idempotency_keys"}  # and of the other one no call is made


@dataclass(frozen=True)
class Homes:
    """The organizations that the two own, each of them one."""

    mine: UUID
    theirs: UUID


async def furnish(client: Client, world: World, homes: Homes, me: Person, other: Person) -> list[str]:
    """What the attack is told of it. Of the other's tokens and codes it is told none."""
    organizations = [str(homes.mine), *await furnish_for_another(world, homes.theirs, other)]
    organizations += [id for _ in range(ENOUGH) for id in await things_of(world, homes.mine, me)]
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
    known += await invitations(world, me) + await leaked_credentials(client)
    world.complete(other, homes.theirs, WRITTEN_BY_CALLS)
    return known + organizations


# --- organizations ----------------------------------------------------------------------------------------------------
async def furnish_for_another(world: World, organization: UUID, owner: Person) -> list[str]:
    """Everything that there can be: the ids of it."""
    world.join(owner, organization, "owner")
    world.give(owner, organization, world.role(organization, ()))
    service = await new_service(world.database)
    world.write("UPDATE service_accounts SET created_by = %s WHERE id = %s", owner.account_id, service.id)
    return await things_of(world, organization, owner)


async def things_of(world: World, organization: UUID, person: Person) -> list[str]:
    """One of each that a request can name."""
    owner = Owner(person, organization)
    made = [await make(world, owner) for make in makers()]
    return [str(id) for id in made if id is not None]


async def invitations(world: World, me: Person) -> list[str]:
    """That I may accept or decline, and one that is not mine; and organizations that I may bring back or leave."""
    host = await world.person()
    made = [world.organization() for _ in range(2 * ENOUGH)]
    for organization in made:
        world.join(host, organization, "owner")
    deleted = made[ENOUGH:]
    for organization in deleted:
        world.join(me, organization, "owner")
        world.write("UPDATE organizations SET deleted_at = now() WHERE id = %s", organization)
    for_me = [world.invitation(organization, host, me.email).token for organization in made[:ENOUGH]]
    return [*map(str, made), *for_me, world.invitation(made[0], host).token]


async def leaked_credentials(client: Client) -> list[str]:
    """Of a service, with which it gets tokens, and of a session, for which it exchanges one."""
    service, careless = await new_service(client.database), await client.somebody()
    return [*[str(service.id), service.secret, AUDIENCE] * ENOUGH, careless.token]


async def known_to_administrators(world: World) -> list[str]:
    """Nobody whose rows are out of reach, since to administrators nobody is."""
    subjects = [await world.person() for _ in range(ENOUGH)]
    services = [await new_service(world.database) for _ in range(ENOUGH)]
    known = [text for who in subjects for text in (str(who.account_id), who.email)]
    return known + [str(id) for service in services for id in (service.id, service.etag)] + ["Somebody"]


# --- accounts ---------------------------------------------------------------------------------------------------------


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
    await second_factors.confirm_second_factor(tx, second_factor_id=factor_id, step=1)
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
