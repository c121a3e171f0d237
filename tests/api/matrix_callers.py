"""The columns of the matrix: every kind of caller, and what a call of theirs comes with."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

import grpc

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
from tests.api.matrix import ALL, Caller, Column, Columns, Presented, held_by
from tests.api.services import OTHER_AUDIENCE, Service, new_service, token_for, token_of
from tests.api.world import World
from tests.factories import Headers, Person, bearer


@dataclass(frozen=True)
class Lines:
    """Connections to the gateway: by certificates that name nobody, the service of that name, and one that is unknown."""

    plain: grpc.aio.Channel
    known: grpc.aio.Channel
    unknown: grpc.aio.Channel
    name: str
    expired_token: Callable[[Service], Awaitable[str]]


Held = frozenset[AnyPermission]
# For each permission that a method may ask for, and for none.
_ASKED: Final = [Permission.PERMISSION_UNSPECIFIED, *ALL]
_BUILT_IN: Final = {"member": ROLE_MEMBER, "admin": ROLE_ADMIN, "owner": ROLE_OWNER}


async def all_callers(world: World, lines: Lines) -> Columns:
    """By the names that the table has for them."""
    acme = world.organization()
    return {
        **await _nobody(world),
        **await _strangers(world, acme),
        **await _members(world, acme),
        **await _keys(world, acme),
        **await _services(world, acme, lines),
        **await _certificates(world, lines),
        **await _administrators(world, acme),
    }


def always(caller: Caller, headers: Headers = (), channel: grpc.aio.Channel | None = None) -> Column:
    """The same, whatever a method asks for."""
    presented = Presented(caller, headers, channel)
    return lambda _: presented


def refused(headers: Headers) -> Column:
    return always(Caller(good=False), headers)


def just(permission: AnyPermission) -> Held:
    return frozenset({permission} & ALL)


def all_but(permission: AnyPermission) -> Held:
    return ALL - {permission}


# --- without a session that is good, or an organization that is theirs ------------------------------------------------
async def _nobody(world: World) -> Columns:
    expired = await world.person(lifetime=-timedelta(seconds=1))
    revoked, banned, halfway = [await world.person() for _ in range(3)]
    world.change_session(revoked, "revoked_at = now()")
    world.change_account(banned, "banned_at = now()")
    return {
        "nobody": always(Caller(credential=None)),
        "garbage": refused(bearer("garbage")),
        "expired": refused(expired.headers),
        "revoked": refused(revoked.headers),
        "banned": refused(banned.headers),
        "half signed in": refused(bearer(await _second_step_token(world, halfway))),
    }


async def _second_step_token(world: World, of: Person) -> str:
    async with world.database.transaction() as tx:
        return await account_tokens.issue(tx, SECOND_STEP, account_id=of.account_id, email=of.email)


async def _strangers(world: World, acme: UUID) -> Columns:
    alone, gone = await world.person(), await world.member(acme, "owner")
    elsewhere, of_deleted = [await world.member(world.organization(), role) for role in ("member", "owner")]
    world.leave(gone, acme)
    world.delete_organizations_of(of_deleted)
    return {
        "without organization": always(Caller(organization=False), alone.headers),
        "member of another organization": always(Caller(permissions=held_by(ROLE_MEMBER)), elsewhere.headers),
        "no longer member": always(Caller(), gone.headers),
        "owner of a deleted organization": always(Caller(), of_deleted.headers),
    }


# --- members ----------------------------------------------------------------------------------------------------------
async def _members(world: World, acme: UUID) -> Columns:
    by_role = {name: await world.member(acme, name) for name in _BUILT_IN}
    stale = await world.member(acme, "owner")
    world.change_session(stale, "authenticated_at = now() - interval '11 minutes'")
    return {
        **{name: always(Caller(permissions=held_by(_BUILT_IN[name])), who.headers) for name, who in by_role.items()},
        "owner who signed in long ago": always(Caller(permissions=ALL, recent=False), stale.headers),
        "custom role with the permission alone": await _by_role(world, acme, just),
        "custom role with all others": await _by_role(world, acme, all_but),
    }


async def _by_role(world: World, acme: UUID, held: Callable[[AnyPermission], Held]) -> Column:
    people = {asked: await world.member(acme, None, held(asked)) for asked in _ASKED}
    presented = {asked: Presented(Caller(permissions=held(asked)), who.headers) for asked, who in people.items()}
    return presented.__getitem__


# --- keys -------------------------------------------------------------------------------------------------------------
async def _keys(world: World, acme: UUID) -> Columns:
    owner, demoted, gone, banned = [await world.member(acme, "owner") for _ in range(4)]
    of_demoted, of_gone, of_banned = [world.key(acme, who, ALL).key for who in (demoted, gone, banned)]
    world.demote(demoted, acme, "member")
    world.leave(gone, acme)
    world.change_account(banned, "banned_at = now()")
    founder = await world.member(closed := world.organization(), "owner")
    of_deleted = world.key(closed, founder, ALL).key
    world.delete_organizations_of(founder)
    expired = world.key(acme, owner, ALL, "expires_at = now()").key
    revoked = world.key(acme, owner, ALL, "revoked_at = now()").key
    return {
        "key with the scope alone": _by_key(world, acme, owner, just),
        "key with all other scopes": _by_key(world, acme, owner, all_but),
        "key whose creator is a mere member now": always(_key(held_by(ROLE_MEMBER)), bearer(of_demoted)),
        "key whose creator has left": refused(bearer(of_gone)),
        "key whose creator is banned": refused(bearer(of_banned)),
        "key of a deleted organization": refused(bearer(of_deleted)),
        "expired key": refused(bearer(expired)),
        "revoked key": refused((("x-api-key", revoked),)),
    }


def _by_key(world: World, acme: UUID, owner: Person, scopes: Callable[[AnyPermission], Held]) -> Column:
    keys = {asked: world.key(acme, owner, scopes(asked)).key for asked in _ASKED}
    presented = {asked: Presented(_key(scopes(asked)), (("x-api-key", key),)) for asked, key in keys.items()}
    return presented.__getitem__


def _key(permissions: Held) -> Caller:
    return Caller(credential=CREDENTIAL_API_KEY, permissions=permissions)


# --- services ---------------------------------------------------------------------------------------------------------
async def _services(world: World, acme: UUID, lines: Lines) -> Columns:
    service, disabled = [await new_service(world.database) for _ in range(2)]
    owner, demoted, gone, signed_out = [await world.member(acme, "owner") for _ in range(4)]
    for_owner, for_demoted, for_gone, for_signed_out = [
        await token_for(lines.plain, service, who) for who in (owner, demoted, gone, signed_out)
    ]
    of_disabled, elsewhere = await token_of(lines.plain, disabled), await token_of(lines.plain, service, OTHER_AUDIENCE)
    world.demote(demoted, acme, "member")
    world.leave(gone, acme)
    world.change_session(signed_out, "revoked_at = now()")
    world.write("UPDATE service_accounts SET disabled_at = now() WHERE id = %s", disabled.id)
    return {
        "service": always(_ITSELF, bearer(await token_of(lines.plain, service))),
        "service for an owner": always(_for_a_person(ALL), bearer(for_owner)),
        "service for a mere member now": always(_for_a_person(held_by(ROLE_MEMBER)), bearer(for_demoted)),
        "service for a former member": always(_for_a_person(frozenset()), bearer(for_gone)),
        "service for somebody who has signed out": refused(bearer(for_signed_out)),
        "service with a token for another audience": refused(bearer(elsewhere)),
        "service with an expired token": refused(bearer(await lines.expired_token(service))),
        "disabled service": refused(bearer(of_disabled)),
    }


_ITSELF: Final = Caller(credential=CREDENTIAL_SERVICE_TOKEN, organization=False, service_for_itself=True)


def _for_a_person(permissions: Held) -> Caller:
    return Caller(credential=CREDENTIAL_SERVICE_TOKEN, permissions=permissions, service_for_a_person=True)


async def _certificates(world: World, lines: Lines) -> Columns:
    await new_service(world.database, name=lines.name)
    itself = Caller(credential=CREDENTIAL_CLIENT_CERTIFICATE, organization=False, service_for_itself=True)
    return {
        "certificate of a service": always(itself, channel=lines.known),
        "certificate of nobody": always(Caller(good=False), channel=lines.unknown),
    }


# --- administrators ---------------------------------------------------------------------------------------------------
async def _administrators(world: World, acme: UUID) -> Columns:
    administrator, former = [await world.person() for _ in range(2)]
    world.change_account(administrator, "role = 'administrator'")
    impersonated, by_former = [await world.member(acme, "owner") for _ in range(2)]
    world.change_session(impersonated, "impersonator_id = %s", administrator.account_id)
    world.change_session(by_former, "impersonator_id = %s", former.account_id)
    return {
        "administrator": always(Caller(organization=False, administrator=True), administrator.headers),
        "administrator as an owner": always(Caller(permissions=ALL, impersonated=True), impersonated.headers),
        "former administrator as an owner": refused(by_former.headers),
    }
