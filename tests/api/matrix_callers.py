"""The columns of the matrix: callers of every kind, with their credentials."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

from accord.policy.v1.policy_pb2 import (
    CREDENTIAL_API_KEY,
    CREDENTIAL_CLIENT_CERTIFICATE,
    CREDENTIAL_SERVICE_TOKEN,
    ROLE_ADMIN,
    ROLE_MEMBER,
    ROLE_OWNER,
    Permission,
)
from accord_api import account_tokens
from accord_api.account_tokens import SECOND_STEP
from accord_rpc.permissions import AnyPermission
from tests.api.faces import Ends
from tests.api.matrix import ALL, CallerTraits, Column, Columns, MatrixCaller, permissions_of
from tests.api.services import OTHER_AUDIENCE, Service, new_service, token_for, token_of
from tests.api.world import World
from tests.factories import Headers, Person, bearer


@dataclass(frozen=True)
class Ways:
    """Ways to the gateway: without a name in the certificate, with the service `name`, and with an unknown service."""

    plain: Ends
    known: Ends
    unknown: Ends
    name: str
    expired_token: Callable[[Service], Awaitable[str]]


Permissions = frozenset[AnyPermission]
# Every permission that a method can require, and none.
_REQUIRED: Final = [Permission.PERMISSION_UNSPECIFIED, *ALL]
_BUILT_IN: Final = {"member": ROLE_MEMBER, "admin": ROLE_ADMIN, "owner": ROLE_OWNER}


async def all_callers(world: World, ways: Ways) -> Columns:
    """The columns by their names in the table."""
    acme = world.organization()
    return {
        **await _without_session(world),
        **await _without_organization(world, acme),
        **await _members(world, acme),
        **await _keys(world, acme),
        **await _services(world, acme, ways),
        **await _certificates(world, ways),
        **await _administrators(world, acme),
    }


def always(traits: CallerTraits, headers: Headers = (), ends: Ends | None = None) -> Column:
    """The same caller for each method."""
    caller = MatrixCaller(traits, headers, ends)
    return lambda _: caller


def refused(headers: Headers) -> Column:
    return always(CallerTraits(valid=False), headers)


def only(permission: AnyPermission) -> Permissions:
    return frozenset({permission} & ALL)


def all_but(permission: AnyPermission) -> Permissions:
    return ALL - {permission}


# --- without a valid session or without an organization ---------------------------------------------------------------
async def _without_session(world: World) -> Columns:
    expired = await world.person(lifetime=-timedelta(seconds=1))
    revoked, banned, unfinished = [await world.person() for _ in range(3)]
    world.change_session(revoked, "revoked_at = now()")
    world.change_account(banned, "banned_at = now()")
    return {
        "no credential": always(CallerTraits(credential=None)),
        "malformed token": refused(bearer("malformed")),
        "expired session": refused(expired.headers),
        "revoked session": refused(revoked.headers),
        "session of a banned account": refused(banned.headers),
        "sign-in without its second step": refused(bearer(await _second_step_token(world, unfinished))),
    }


async def _second_step_token(world: World, person: Person) -> str:
    async with world.database.transaction() as tx:
        return await account_tokens.issue(tx, SECOND_STEP, account_id=person.account_id, email=person.email)


async def _without_organization(world: World, acme: UUID) -> Columns:
    without_organization, former = await world.person(), await world.member(acme, "owner")
    other_member, deleted_owner = [await world.member(world.organization(), role) for role in ("member", "owner")]
    world.leave(former, acme)
    world.delete_organizations_of(deleted_owner)
    return {
        "without organization": always(CallerTraits(organization=False), without_organization.headers),
        "member of another organization": always(
            CallerTraits(permissions=permissions_of(ROLE_MEMBER)), other_member.headers
        ),
        "former member": always(CallerTraits(), former.headers),
        "owner of a deleted organization": always(CallerTraits(), deleted_owner.headers),
    }


# --- members ----------------------------------------------------------------------------------------------------------
async def _members(world: World, acme: UUID) -> Columns:
    by_role = {name: await world.member(acme, name) for name in _BUILT_IN}
    not_fresh, must_change = [await world.member(acme, "owner") for _ in range(2)]
    world.change_session(must_change, "password_change_required = true")
    world.change_account(must_change, "role = 'administrator'")
    world.change_session(not_fresh, "authenticated_at = now() - interval '11 minutes'")
    return {
        **{
            role: always(CallerTraits(permissions=permissions_of(_BUILT_IN[role])), it.headers)
            for role, it in by_role.items()
        },
        "owner without a fresh sign-in": always(CallerTraits(permissions=ALL, fresh=False), not_fresh.headers),
        "owner and administrator who must change the password": always(
            CallerTraits(permissions=ALL, administrator=True, password_change_required=True), must_change.headers
        ),
        "custom role with only the permission": await _by_role(world, acme, only),
        "custom role with all other permissions": await _by_role(world, acme, all_but),
    }


async def _by_role(world: World, acme: UUID, granted: Callable[[AnyPermission], Permissions]) -> Column:
    members = {required: await world.member(acme, None, granted(required)) for required in _REQUIRED}
    callers = {
        required: MatrixCaller(CallerTraits(permissions=granted(required)), member.headers)
        for required, member in members.items()
    }
    return callers.__getitem__


# --- keys -------------------------------------------------------------------------------------------------------------
async def _keys(world: World, acme: UUID) -> Columns:
    owner, demoted, former, banned = [await world.member(acme, "owner") for _ in range(4)]
    of_demoted, of_former, of_banned = [world.key(acme, member, ALL).key for member in (demoted, former, banned)]
    world.demote(demoted, acme, "member")
    world.leave(former, acme)
    world.change_account(banned, "banned_at = now()")
    founder = await world.member(closed := world.organization(), "owner")
    of_deleted = world.key(closed, founder, ALL).key
    world.delete_organizations_of(founder)
    expired = world.key(acme, owner, ALL, "expires_at = now()").key
    revoked = world.key(acme, owner, ALL, "revoked_at = now()").key
    return {
        "key with only the scope": _by_key(world, acme, owner, only),
        "key with all other scopes": _by_key(world, acme, owner, all_but),
        "key whose creator was demoted to member": always(_key(permissions_of(ROLE_MEMBER)), bearer(of_demoted)),
        "key whose creator has left": refused(bearer(of_former)),
        "key whose creator is banned": refused(bearer(of_banned)),
        "key of a deleted organization": refused(bearer(of_deleted)),
        "personal key with only the scope": _by_key(world, None, owner, only),
        "personal key with all other scopes": _by_key(world, None, owner, all_but),
        "personal key whose creator is banned": refused(bearer(world.key(None, banned, ALL).key)),
        "expired key": refused(bearer(expired)),
        "revoked key": refused((("x-api-key", revoked),)),
    }


def _by_key(world: World, of: UUID | None, owner: Person, scopes: Callable[[AnyPermission], Permissions]) -> Column:
    keys = {required: world.key(of, owner, scopes(required)).key for required in _REQUIRED}
    callers = {
        required: MatrixCaller(_key(scopes(required), organization=of is not None), (("x-api-key", key),))
        for required, key in keys.items()
    }
    return callers.__getitem__


def _key(permissions: Permissions, *, organization: bool = True) -> CallerTraits:
    return CallerTraits(credential=CREDENTIAL_API_KEY, permissions=permissions, organization=organization)


# --- services ---------------------------------------------------------------------------------------------------------
async def _services(world: World, acme: UUID, ways: Ways) -> Columns:
    service, disabled = [await new_service(world.database) for _ in range(2)]
    owner, demoted, former, signed_out = [await world.member(acme, "owner") for _ in range(4)]
    for_owner, for_demoted, for_former, for_signed_out = [
        await token_for(ways.plain.channel, service, member) for member in (owner, demoted, former, signed_out)
    ]
    of_disabled, for_other_audience = (
        await token_of(ways.plain.channel, disabled),
        await token_of(ways.plain.channel, service, OTHER_AUDIENCE),
    )
    world.demote(demoted, acme, "member")
    world.leave(former, acme)
    world.change_session(signed_out, "revoked_at = now()")
    world.write("UPDATE service_accounts SET disabled_at = now() WHERE id = %s", disabled.id)
    return {
        "service": always(_ITSELF, bearer(await token_of(ways.plain.channel, service))),
        "service for an owner": always(_for_user(ALL), bearer(for_owner)),
        "service for an owner demoted to member": always(_for_user(permissions_of(ROLE_MEMBER)), bearer(for_demoted)),
        "service for a former member": always(_for_user(frozenset()), bearer(for_former)),
        "service for a user member signed out": refused(bearer(for_signed_out)),
        "service with a token for another audience": refused(bearer(for_other_audience)),
        "service with an expired token": refused(bearer(await ways.expired_token(service))),
        "disabled service": refused(bearer(of_disabled)),
    }


_ITSELF: Final = CallerTraits(credential=CREDENTIAL_SERVICE_TOKEN, organization=False, service_for_itself=True)


def _for_user(permissions: Permissions) -> CallerTraits:
    return CallerTraits(credential=CREDENTIAL_SERVICE_TOKEN, permissions=permissions, service_for_user=True)


async def _certificates(world: World, ways: Ways) -> Columns:
    await new_service(world.database, name=ways.name)
    itself = CallerTraits(credential=CREDENTIAL_CLIENT_CERTIFICATE, organization=False, service_for_itself=True)
    return {
        "certificate of a service": always(itself, ends=ways.known),
        "certificate of an unknown service": always(CallerTraits(valid=False), ends=ways.unknown),
    }


# --- administrators ---------------------------------------------------------------------------------------------------
async def _administrators(world: World, acme: UUID) -> Columns:
    administrator, former = [await world.person() for _ in range(2)]
    world.change_account(administrator, "role = 'administrator'")
    impersonated, by_former = [await world.member(acme, "owner") for _ in range(2)]
    world.change_session(impersonated, "impersonator_id = %s", administrator.account_id)
    world.change_session(by_former, "impersonator_id = %s", former.account_id)
    return {
        "administrator": always(CallerTraits(organization=False, administrator=True), administrator.headers),
        "administrator as an owner": always(CallerTraits(permissions=ALL, impersonated=True), impersonated.headers),
        "former administrator as an owner": refused(by_former.headers),
    }
