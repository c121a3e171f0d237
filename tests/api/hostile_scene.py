"""Rows of two users and of their organizations, which give an attack something to break."""

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

COPIES = 3  # of resources that the first successful call uses up
WRITTEN_BY_CALLS = {"audit_events", "idempotency_keys"}  # empty for `other`, who makes no call


@dataclass(frozen=True)
class OwnedOrganizations:
    """The organization of each user."""

    mine: UUID
    theirs: UUID


async def populate(client: Client, world: World, owned: OwnedOrganizations, me: Person, other: Person) -> list[str]:
    """Returns the ids and tokens that the attack knows. They include no token and no code of `other`."""
    organizations = [str(owned.mine), *await populate_other(world, owned.theirs, other)]
    organizations += [id for _ in range(COPIES) for id in await resources_of(world, owned.mine, me)]
    async with client.database.transaction() as tx:
        known = [await linked_provider(tx, person) for person in (me, other)]
        await confirmed_second_factor(tx, other)
        for kind in (CHANGE_EMAIL, SECOND_STEP):
            await token(tx, other, kind)
    await provider_sign_in(client.database, other)
    await SecondFactorServiceStub(client.channel).CreateSecondFactor(CreateSecondFactorRequest(), metadata=me.headers)
    await approved_device(client, other)
    known.append((await approved_device(client, me)).device_code)
    for _ in range(COPIES):
        waiting = await device(client)
        known += [waiting.user_code, waiting.device_code, *await leaked_tokens(client)]
    known += await invitations(world, me) + await leaked_credentials(client)
    world.complete(other, owned.theirs, WRITTEN_BY_CALLS)
    return known + organizations


# --- organizations ----------------------------------------------------------------------------------------------------
async def populate_other(world: World, organization: UUID, owner: Person) -> list[str]:
    """Inserts one of each kind of resource. Returns the ids that a request can name."""
    world.join(owner, organization, "owner")
    world.give(owner, organization, world.role(organization, ()))
    service = await new_service(world.database)
    world.write("UPDATE service_accounts SET created_by = %s WHERE id = %s", owner.account_id, service.id)
    return await resources_of(world, organization, owner)


async def resources_of(world: World, organization: UUID, person: Person) -> list[str]:
    """Inserts one of each resource that a request can name. Returns the ids."""
    owner = Owner(person, organization)
    created = [await make(world, owner) for make in makers()]
    return [str(id) for id in created if id is not None]


async def invitations(world: World, me: Person) -> list[str]:
    """Invitations of `me` and one of another user, and organizations that `me` may restore or leave."""
    host = await world.person()
    made = [world.organization() for _ in range(2 * COPIES)]
    for organization in made:
        world.join(host, organization, "owner")
    deleted = made[COPIES:]
    for organization in deleted:
        world.join(me, organization, "owner")
        world.write("UPDATE organizations SET deleted_at = now() WHERE id = %s", organization)
    for_me = [world.invitation(organization, host, me.email).token for organization in made[:COPIES]]
    return [*map(str, made), *for_me, world.invitation(made[0], host).token]


async def leaked_credentials(client: Client) -> list[str]:
    """The credentials of a service, which can request tokens, and a session token, which the service can exchange."""
    service, victim = await new_service(client.database), await client.new_user()
    return [*[str(service.id), service.secret, AUDIENCE] * COPIES, victim.token]


async def known_to_administrators(world: World) -> list[str]:
    """Ids of accounts and services that the attack may change; without `other`, which must stay unchanged."""
    subjects = [await world.person() for _ in range(COPIES)]
    services = [await new_service(world.database) for _ in range(COPIES)]
    known = [text for person in subjects for text in (str(person.account_id), person.email)]
    return known + [str(id) for service in services for id in (service.id, service.etag)] + ["Some User"]


# --- accounts ---------------------------------------------------------------------------------------------------------


async def leaked_tokens(client: Client) -> list[str]:
    """Tokens of another account. A caller with such a token may change that account."""
    victim = await client.new_user()
    async with client.database.transaction() as tx:
        return [await token(tx, victim, kind) for kind in (VERIFY_EMAIL, RESET_PASSWORD, SECOND_STEP)]


async def token(tx: Transaction, person: Person, kind: Kind) -> str:
    return await account_tokens.issue(tx, kind, account_id=person.account_id, email=person.email)


async def linked_provider(tx: Transaction, person: Person) -> str:
    linked = await providers.insert_linked_provider(
        tx,
        linked_provider_id=uuid7(),
        account_id=person.account_id,
        provider="corp",
        issuer="https://corp.example",
        subject=person.email,
        email=person.email,
        tokens=EncryptedTokens(b"sealed", None, None),
    )
    return str(linked.id)


async def provider_sign_in(database: Database, person: Person) -> None:
    await providers.insert_provider_sign_in(
        database,
        sign_in_id=uuid7(),
        token_hash=token_hash(new_token(PROVIDER_SIGN_IN_PREFIX)),
        provider="corp",
        redirect_uri="https://app.example/callback",
        lifetime=timedelta(minutes=10),
        account_id=person.account_id,
    )


async def confirmed_second_factor(tx: Transaction, person: Person) -> None:
    factor_id, codes = uuid7(), [recovery_code_hash(code) for code in new_recovery_codes()]
    await second_factors.insert_second_factor(
        tx, second_factor_id=factor_id, account_id=person.account_id, secret=b"sealed"
    )
    await second_factors.confirm_second_factor(tx, second_factor_id=factor_id, step=1)
    await second_factors.insert_recovery_codes(
        tx, second_factor_id=factor_id, ids=[uuid7() for _ in codes], code_hashes=[code for code in codes if code]
    )


async def device(client: Client) -> BeginDeviceSignInResponse:
    request = BeginDeviceSignInRequest(device_name="A television")
    return await DeviceServiceStub(client.channel).BeginDeviceSignIn(request)


async def approved_device(client: Client, approver: Person) -> BeginDeviceSignInResponse:
    begun = await device(client)
    request = ApproveDeviceRequest(user_code=begun.user_code)
    await DeviceServiceStub(client.channel).ApproveDevice(request, metadata=approver.headers)
    return begun
