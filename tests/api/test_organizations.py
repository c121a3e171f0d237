import asyncio
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from accord.accounts.v1.accounts_pb2 import DeleteAccountRequest
from accord.organizations.v1.organizations_pb2 import (
    CreateOrganizationRequest,
    DeleteOrganizationRequest,
    GetOrganizationRequest,
    ListOrganizationsRequest,
    Organization,
    SetActiveOrganizationRequest,
    UndeleteOrganizationRequest,
    UpdateOrganizationRequest,
)
from accord.organizations.v1.organizations_pb2_grpc import OrganizationServiceStub
from accord.policy.v1.policy_pb2 import ROLE_ADMIN, ROLE_MEMBER, ROLE_OWNER, ROLE_UNSPECIFIED
from accord.sessions.v1.sessions_pb2 import GetSessionRequest
from accord.sessions.v1.sessions_pb2_grpc import SessionServiceStub
from accord_db.queries import members, sessions
from tests.api.conftest import Client, Refusal, outcome, refusal
from tests.conftest import change, count
from tests.factories import Person, activate, api_key_of, joined, organization_of

if TYPE_CHECKING:
    from accord.organizations.v1.organizations_pb2_grpc import OrganizationServiceAsyncStub


@pytest.fixture
def organizations(client: Client) -> "OrganizationServiceAsyncStub":
    return OrganizationServiceStub(client.channel)


@pytest.fixture
async def other(client: Client) -> Person:
    return await client.new_user()


async def create(
    organizations: "OrganizationServiceAsyncStub", caller: Person, slug: str = "acme", **fields: str
) -> Organization:
    request = CreateOrganizationRequest(name="Acme", slug=slug, **fields)
    return (await organizations.CreateOrganization(request, metadata=caller.headers)).organization


async def get(
    organizations: "OrganizationServiceAsyncStub", caller: Person, organization_id: object = ""
) -> Organization:
    request = GetOrganizationRequest(organization_id=str(organization_id))
    return (await organizations.GetOrganization(request, metadata=caller.headers)).organization


async def set_active(
    organizations: "OrganizationServiceAsyncStub", caller: Person, organization_id: object = ""
) -> Organization:
    request = SetActiveOrganizationRequest(organization_id=str(organization_id))
    return (await organizations.SetActiveOrganization(request, metadata=caller.headers)).organization


async def update(
    organizations: "OrganizationServiceAsyncStub", caller: Person, *paths: str, **fields: Any
) -> Organization:
    request = UpdateOrganizationRequest(organization=Organization(**fields), update_mask=FieldMask(paths=paths))
    return (await organizations.UpdateOrganization(request, metadata=caller.headers)).organization


async def delete(organizations: "OrganizationServiceAsyncStub", caller: Person, etag: str = "") -> Organization:
    request = DeleteOrganizationRequest(etag=etag)
    return (await organizations.DeleteOrganization(request, metadata=caller.headers)).organization


async def undelete(
    organizations: "OrganizationServiceAsyncStub", caller: Person, organization_id: object
) -> Organization:
    request = UndeleteOrganizationRequest(organization_id=str(organization_id))
    return (await organizations.UndeleteOrganization(request, metadata=caller.headers)).organization


async def listed(organizations: "OrganizationServiceAsyncStub", caller: Person, **request: Any) -> list[Organization]:
    """All pages."""
    found, token = list[Organization](), ""
    while True:
        page = await organizations.ListOrganizations(
            ListOrganizationsRequest(page_token=token, **request), metadata=caller.headers
        )
        found += page.organizations
        if not (token := page.next_page_token):
            return found


def not_found(refused: Refusal, organization_id: object) -> bool:
    return (refused.code, refused.reason, refused.metadata) == (
        grpc.StatusCode.NOT_FOUND,
        "ORGANIZATION_NOT_FOUND",
        {"organization_id": str(organization_id)},
    )


# --- create -----------------------------------------------------------------------------------------------------------
async def test_create_organization_returns_it_and_makes_the_creator_owner(
    client: Client, organizations: "OrganizationServiceAsyncStub", me: Person
) -> None:
    made = await create(organizations, me)
    assert UUID(made.id).version == 7
    assert (made.name, made.slug, made.role) == ("Acme", "acme", ROLE_OWNER)
    assert made.created_at == made.updated_at
    assert made.etag
    assert not made.HasField("deleted_at")
    assert await get(organizations, me, made.id) == made
    owner = await members.get_member(client.database, organization_id=UUID(made.id), account_id=me.account_id)
    assert owner is not None
    assert owner.role == "owner"


async def test_new_organization_is_not_active(organizations: "OrganizationServiceAsyncStub", me: Person) -> None:
    await create(organizations, me)
    assert (await refusal(get(organizations, me))).reason == "ORGANIZATION_NOT_FOUND"


async def test_slug_is_unique_across_all_users(
    organizations: "OrganizationServiceAsyncStub", me: Person, other: Person
) -> None:
    await create(organizations, me)
    refused = await refusal(create(organizations, other))
    assert (refused.code, refused.reason, refused.metadata) == (grpc.StatusCode.ALREADY_EXISTS, "SLUG_TAKEN", {})
    assert await listed(organizations, other) == []


async def test_one_of_fifty_concurrent_creations_with_the_same_slug_succeeds(
    dsn: str, client: Client, organizations: "OrganizationServiceAsyncStub"
) -> None:
    people = [await client.new_user() for _ in range(50)]
    outcomes = await asyncio.gather(*(outcome(create(organizations, caller)) for caller in people))
    assert sorted(outcomes) == ["OK"] + 49 * ["SLUG_TAKEN"]
    assert (count(dsn, "organizations"), count(dsn, "members")) == (1, 1)


async def test_repeated_request_id_creates_one_organization(
    dsn: str, organizations: "OrganizationServiceAsyncStub", me: Person
) -> None:
    request_id = str(uuid4())
    made = [await create(organizations, me, request_id=request_id) for _ in range(2)]
    assert made[0] == made[1]
    assert count(dsn, "organizations") == 1


async def test_concurrent_account_deletion_leaves_no_ownerless_organization(
    dsn: str, client: Client, organizations: "OrganizationServiceAsyncStub"
) -> None:
    people = [await client.new_user() for _ in range(20)]
    await asyncio.gather(
        *(outcome(client.accounts.DeleteAccount(DeleteAccountRequest(), metadata=caller.headers)) for caller in people),
        *(outcome(create(organizations, caller, slug=f"slug-{number}")) for number, caller in enumerate(people)),
    )
    ownerless = "organizations o WHERE NOT EXISTS (SELECT FROM members m JOIN accounts a ON a.id = m.account_id"
    assert count(dsn, f"{ownerless} WHERE m.organization_id = o.id AND a.deleted_at IS NULL)") == 0


@pytest.mark.parametrize("slug", ["", "-", "-a", "a-", "A", "a_b", "a b", "ä", "a" * 64, "a\n"])
async def test_invalid_slug_is_refused(organizations: "OrganizationServiceAsyncStub", me: Person, slug: str) -> None:
    assert list((await refusal(create(organizations, me, slug))).violations) == ["slug"]


@pytest.mark.parametrize("slug", ["a", "0", "a-b", "a--b", "a" * 63])
async def test_valid_slug_is_accepted(organizations: "OrganizationServiceAsyncStub", me: Person, slug: str) -> None:
    assert (await create(organizations, me, slug)).slug == slug


# --- get and list -----------------------------------------------------------------------------------------------------
async def test_organization_of_another_user_is_not_found(
    client: Client, organizations: "OrganizationServiceAsyncStub", me: Person, other: Person
) -> None:
    theirs = await organization_of(client.database, other)
    for organization_id in (theirs, uuid4()):
        for call in (get, set_active, undelete):
            assert not_found(await refusal(call(organizations, me, organization_id)), organization_id)


async def test_get_without_an_id_returns_the_active_organization(
    client: Client, organizations: "OrganizationServiceAsyncStub", me: Person
) -> None:
    first, _ = [await organization_of(client.database, me) for _ in range(2)]
    await activate(client.database, me, first)
    assert (await get(organizations, me)).id == str(first)


async def test_list_organizations_returns_the_role_of_the_caller(
    client: Client, organizations: "OrganizationServiceAsyncStub", me: Person
) -> None:
    made = [await organization_of(client.database, me, role) for role in ("owner", "admin", "member", None)]
    found = await listed(organizations, me)
    assert [(each.id, each.role) for each in reversed(found)] == list(
        zip(map(str, made), (ROLE_OWNER, ROLE_ADMIN, ROLE_MEMBER, ROLE_UNSPECIFIED), strict=True)
    )


async def test_list_organizations_pages_through_organizations_of_the_caller_only(
    client: Client, organizations: "OrganizationServiceAsyncStub", me: Person, other: Person
) -> None:
    mine = []
    for _ in range(5):
        mine.append(await organization_of(client.database, me))
        await organization_of(client.database, other)
    found = await listed(organizations, me, page_size=2)
    assert [each.id for each in found] == [str(each) for each in reversed(mine)]


async def test_a_page_token_of_another_list_is_refused(
    client: Client, organizations: "OrganizationServiceAsyncStub", me: Person, other: Person
) -> None:
    for _ in range(2):
        await joined(client.database, await organization_of(client.database, me), other)
    page = await organizations.ListOrganizations(ListOrganizationsRequest(page_size=1), metadata=me.headers)
    for caller, request in (
        (other, ListOrganizationsRequest(page_token=page.next_page_token)),
        (me, ListOrganizationsRequest(page_token=page.next_page_token, show_deleted=True)),
    ):
        refused = await refusal(organizations.ListOrganizations(request, metadata=caller.headers))
        assert refused.reason == "PAGE_TOKEN_INVALID"


async def test_api_key_has_access_to_its_organization_only(
    client: Client, organizations: "OrganizationServiceAsyncStub", me: Person
) -> None:
    its, another = [await organization_of(client.database, me) for _ in range(2)]
    headers = (await api_key_of(client.database, me, its)).headers
    await activate(client.database, me, another)
    for organization_id in ("", str(its)):
        request = GetOrganizationRequest(organization_id=organization_id)
        assert (await organizations.GetOrganization(request, metadata=headers)).organization.id == str(its)
    request = GetOrganizationRequest(organization_id=str(another))
    assert not_found(await refusal(organizations.GetOrganization(request, metadata=headers)), another)
    page = await organizations.ListOrganizations(ListOrganizationsRequest(), metadata=headers)
    assert [each.id for each in page.organizations] == [str(its)]


# --- the active organization ------------------------------------------------------------------------------------------
async def test_set_active_organization_affects_the_session_of_the_caller_only(
    client: Client, organizations: "OrganizationServiceAsyncStub", me: Person, other: Person
) -> None:
    made = await organization_of(client.database, me)
    await joined(client.database, made, other)
    assert (await set_active(organizations, me, made)).id == str(made)
    assert (await get(organizations, me)).id == str(made)
    assert (await refusal(get(organizations, other))).reason == "ORGANIZATION_NOT_FOUND"


async def test_get_session_returns_the_active_organization(
    client: Client, organizations: "OrganizationServiceAsyncStub", me: Person
) -> None:
    made, sessions = await create(organizations, me), SessionServiceStub(client.channel)
    before = (await sessions.GetSession(GetSessionRequest(), metadata=me.headers)).session
    assert not before.HasField("active_organization_id")
    await set_active(organizations, me, made.id)
    session = (await sessions.GetSession(GetSessionRequest(), metadata=me.headers)).session
    assert session.active_organization_id == made.id
    assert not session.HasField("impersonator_id")


async def test_active_organization_can_be_cleared(organizations: "OrganizationServiceAsyncStub", me: Person) -> None:
    made = await create(organizations, me)
    await set_active(organizations, me, made.id)
    response = await organizations.SetActiveOrganization(SetActiveOrganizationRequest(), metadata=me.headers)
    assert not response.HasField("organization")
    assert (await refusal(get(organizations, me))).reason == "ORGANIZATION_NOT_FOUND"


async def test_cached_session_is_invalidated_when_the_active_organization_changes(
    organizations: "OrganizationServiceAsyncStub", me: Person
) -> None:
    for slug in ("one", "two", "three"):
        made = await create(organizations, me, slug)
        await set_active(organizations, me, made.id)
        assert (await get(organizations, me)).slug == slug


async def test_revoked_session_cannot_set_an_active_organization(
    client: Client, organizations: "OrganizationServiceAsyncStub", me: Person
) -> None:
    made = await organization_of(client.database, me)
    await sessions.revoke_session(client.database, session_id=me.session_id, account_id=me.account_id)
    is_set = await sessions.update_session_organization(
        client.database, session_id=me.session_id, account_id=me.account_id, organization_id=made
    )
    assert not is_set


async def test_session_of_another_account_cannot_be_updated(client: Client, me: Person, other: Person) -> None:
    made = await organization_of(client.database, me)
    assert not await sessions.update_session_organization(
        client.database, session_id=other.session_id, account_id=me.account_id, organization_id=made
    )


# --- update -----------------------------------------------------------------------------------------------------------
@pytest.fixture
async def mine(client: Client, organizations: "OrganizationServiceAsyncStub", me: Person) -> Organization:
    """An organization owned by `me`, active in the session."""
    made = await create(organizations, me)
    await set_active(organizations, me, made.id)
    return made


async def test_update_organization_changes_the_fields_of_the_mask(
    organizations: "OrganizationServiceAsyncStub", me: Person, mine: Organization
) -> None:
    now = await update(organizations, me, "name", id=mine.id, name="Other", slug="other")
    assert (now.name, now.slug, now.role) == ("Other", "acme", ROLE_OWNER)
    assert now.etag != mine.etag
    now = await update(organizations, me, id=mine.id, slug="other")
    assert (now.name, now.slug) == ("Other", "other")
    assert await get(organizations, me) == now


async def test_update_with_a_stale_etag_changes_nothing(
    organizations: "OrganizationServiceAsyncStub", me: Person, mine: Organization
) -> None:
    now = await update(organizations, me, id=mine.id, name="Other", etag=mine.etag)
    refused = await refusal(update(organizations, me, id=mine.id, name="Third", etag=mine.etag))
    assert (refused.code, refused.reason) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")
    assert await get(organizations, me) == now


async def test_update_to_an_existing_slug_changes_nothing(
    organizations: "OrganizationServiceAsyncStub", me: Person, other: Person, mine: Organization
) -> None:
    await create(organizations, other, "other")
    refused = await refusal(update(organizations, me, id=mine.id, name="Other", slug="other"))
    assert refused.reason == "SLUG_TAKEN"
    assert await get(organizations, me) == mine


async def test_only_the_active_organization_is_updated(
    client: Client, organizations: "OrganizationServiceAsyncStub", me: Person, other: Person, mine: Organization
) -> None:
    for organization_id in (
        await organization_of(client.database, me),
        await organization_of(client.database, other),
        uuid4(),
    ):
        refused = await refusal(update(organizations, me, id=str(organization_id), name="Mine"))
        assert not_found(refused, organization_id)


@pytest.mark.parametrize("path", ["id", "role", "created_at", "updated_at", "deleted_at", "etag", "*", "owner"])
async def test_mask_cannot_name_a_read_only_field(
    organizations: "OrganizationServiceAsyncStub", me: Person, mine: Organization, path: str
) -> None:
    refused = await refusal(update(organizations, me, path, id=mine.id, role=ROLE_MEMBER))
    assert list(refused.violations) == ["update_mask"]
    assert await get(organizations, me) == mine


@pytest.mark.parametrize("field", ["name", "slug"])
async def test_name_and_slug_cannot_be_cleared(
    organizations: "OrganizationServiceAsyncStub", me: Person, mine: Organization, field: str
) -> None:
    assert (await refusal(update(organizations, me, field, id=mine.id))).reason == "INVALID_MESSAGE"


async def test_member_cannot_update_or_delete(
    client: Client, organizations: "OrganizationServiceAsyncStub", me: Person, other: Person, mine: Organization
) -> None:
    await joined(client.database, UUID(mine.id), other, "member")
    await set_active(organizations, other, mine.id)
    assert (await refusal(update(organizations, other, id=mine.id, name="Theirs"))).reason == "PERMISSION_DENIED"
    assert (await refusal(delete(organizations, other))).reason == "PERMISSION_DENIED"
    assert await get(organizations, me) == mine


async def test_admin_can_update_but_not_delete(
    client: Client, organizations: "OrganizationServiceAsyncStub", other: Person, mine: Organization
) -> None:
    await joined(client.database, UUID(mine.id), other, "admin")
    await set_active(organizations, other, mine.id)
    assert (await update(organizations, other, id=mine.id, name="Ours")).role == ROLE_ADMIN
    assert (await refusal(delete(organizations, other))).reason == "PERMISSION_DENIED"


# --- delete and undelete ----------------------------------------------------------------------------------------------
async def test_deleted_organization_is_not_found_on_the_next_call(
    client: Client, organizations: "OrganizationServiceAsyncStub", me: Person, other: Person, mine: Organization
) -> None:
    await joined(client.database, UUID(mine.id), other, "admin")
    await set_active(organizations, other, mine.id)
    assert (await get(organizations, other)).id == mine.id
    deleted = await delete(organizations, me, mine.etag)
    assert deleted.HasField("deleted_at")
    for caller in (me, other):
        for call in (get(organizations, caller, mine.id), set_active(organizations, caller, mine.id)):
            assert not_found(await refusal(call), mine.id)
        assert (await refusal(update(organizations, caller, id=mine.id, name="Late"))).reason == "PERMISSION_DENIED"
        assert await listed(organizations, caller) == []


async def test_delete_with_a_stale_etag_deletes_nothing(
    organizations: "OrganizationServiceAsyncStub", me: Person, mine: Organization
) -> None:
    now = await update(organizations, me, id=mine.id, name="Other")
    assert (await refusal(delete(organizations, me, mine.etag))).reason == "ETAG_MISMATCH"
    assert await get(organizations, me) == now


async def test_delete_requires_a_recent_sign_in(
    dsn: str, client: Client, organizations: "OrganizationServiceAsyncStub", me: Person
) -> None:
    await activate(client.database, me, await organization_of(client.database, me))
    change(dsn, "UPDATE sessions SET authenticated_at = now() - interval '11 minutes' WHERE id = %s", me.session_id)
    assert (await refusal(delete(organizations, me))).reason == "SIGN_IN_NOT_FRESH"


async def test_undelete_restores_everything_immediately(
    client: Client, organizations: "OrganizationServiceAsyncStub", me: Person, other: Person, mine: Organization
) -> None:
    await joined(client.database, UUID(mine.id), other, "admin")
    await set_active(organizations, other, mine.id)
    await delete(organizations, me)
    assert (await refusal(update(organizations, other, id=mine.id, name="Late"))).reason == "PERMISSION_DENIED"
    assert [each.HasField("deleted_at") for each in await listed(organizations, me, show_deleted=True)] == [True]
    back = await undelete(organizations, me, mine.id)
    assert not back.HasField("deleted_at")
    assert (back.id, back.slug, back.role) == (mine.id, mine.slug, ROLE_OWNER)
    assert (await update(organizations, other, id=mine.id, name="Again")).name == "Again"


async def test_undelete_of_an_organization_that_is_not_deleted_returns_it_unchanged(
    organizations: "OrganizationServiceAsyncStub", me: Person, mine: Organization
) -> None:
    assert await undelete(organizations, me, mine.id) == mine


async def test_only_an_owner_can_undelete(
    client: Client, organizations: "OrganizationServiceAsyncStub", me: Person, other: Person, mine: Organization
) -> None:
    await joined(client.database, UUID(mine.id), other, "admin")
    await delete(organizations, me)
    assert not_found(await refusal(undelete(organizations, other, mine.id)), mine.id)


async def test_undelete_is_refused_while_another_organization_has_the_slug(
    organizations: "OrganizationServiceAsyncStub", me: Person, other: Person, mine: Organization
) -> None:
    await delete(organizations, me)
    theirs = await create(organizations, other)
    assert (await refusal(undelete(organizations, me, mine.id))).reason == "SLUG_TAKEN"
    await set_active(organizations, other, theirs.id)
    await update(organizations, other, id=theirs.id, slug="free")
    assert (await undelete(organizations, me, mine.id)).slug == "acme"
