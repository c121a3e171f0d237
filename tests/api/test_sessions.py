import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import grpc
import psycopg
import pytest

from accord.accounts.v1.accounts_pb2 import DeleteAccountRequest, Session, SessionStatus, SignOutRequest
from accord.sessions.v1.sessions_pb2 import (
    GetSessionRequest,
    ListSessionsRequest,
    ReauthenticateRequest,
    ReauthenticateResponse,
    RevokeOtherSessionsRequest,
    RevokeSessionRequest,
    SetClientMetadataRequest,
)
from accord.sessions.v1.sessions_pb2_grpc import SessionServiceStub
from accord_db.queries import accounts
from accord_db.queries import sessions as queries
from tests.api.conftest import Client, Refusal, refusal
from tests.api.signing_in import (
    EMAIL,
    OTHER_PASSWORD,
    PASSWORD,
    hash_changed_during,
    outdated_hash,
    remove_password,
    sign_in,
    sign_up,
)
from tests.conftest import change
from tests.factories import Headers, Person, bearer

if TYPE_CHECKING:
    from accord.sessions.v1.sessions_pb2_grpc import SessionServiceAsyncStub

ACTIVE, EXPIRED, REVOKED = (
    SessionStatus.SESSION_STATUS_ACTIVE,
    SessionStatus.SESSION_STATUS_EXPIRED,
    SessionStatus.SESSION_STATUS_REVOKED,
)


@pytest.fixture
def sessions(client: Client) -> "SessionServiceAsyncStub":
    return SessionServiceStub(client.channel)


@pytest.fixture
def elsewhere(elsewhere: grpc.aio.Channel) -> "SessionServiceAsyncStub":
    return SessionServiceStub(elsewhere)


@pytest.fixture
async def mine(client: Client) -> list[Headers]:
    """Five sessions of one user, the newest last."""
    await sign_up(client)
    return [bearer((await sign_in(client)).session_token) for _ in range(5)]


async def session_of(sessions: "SessionServiceAsyncStub", headers: Headers, session_id: str = "") -> Session:
    return (await sessions.GetSession(GetSessionRequest(session_id=session_id), metadata=headers)).session


async def listed(sessions: "SessionServiceAsyncStub", headers: Headers, **request: Any) -> list[Session]:
    """The sessions of all pages."""
    found, token = list[Session](), ""
    while True:
        page = await sessions.ListSessions(ListSessionsRequest(page_token=token, **request), metadata=headers)
        found += page.sessions
        if not (token := page.next_page_token):
            return found


async def reauthenticate(
    sessions: "SessionServiceAsyncStub", headers: Headers, password: str = PASSWORD
) -> ReauthenticateResponse:
    return await sessions.Reauthenticate(ReauthenticateRequest(password=password), metadata=headers)


async def is_refused(sessions: "SessionServiceAsyncStub", headers: Headers) -> bool:
    refused = await refusal(sessions.GetSession(GetSessionRequest(), metadata=headers))
    return (refused.code, refused.reason) == (grpc.StatusCode.UNAUTHENTICATED, "CREDENTIAL_INVALID")


async def until_refused(sessions: "SessionServiceAsyncStub", headers: Headers) -> None:
    """Waits for the notification, which arrives within milliseconds; the cache alone would accept the token for seconds."""
    async with asyncio.timeout(2):
        while True:
            try:
                await sessions.GetSession(GetSessionRequest(), metadata=headers)
            except grpc.aio.AioRpcError as error:
                assert error.code() == grpc.StatusCode.UNAUTHENTICATED
                return


# --- client metadata --------------------------------------------------------------------------------------------------
async def set_metadata(sessions: "SessionServiceAsyncStub", headers: Headers, metadata: dict[str, str]) -> Session:
    request = SetClientMetadataRequest(client_metadata=metadata)
    return (await sessions.SetClientMetadata(request, metadata=headers)).session


async def test_client_sets_and_replaces_the_metadata_of_its_session_only(
    sessions: "SessionServiceAsyncStub", mine: list[Headers]
) -> None:
    first = await set_metadata(sessions, mine[0], {"device": "Ada's telephone", "version": "1"})
    assert (dict(first.client_metadata), first.current, first.status) == (
        {"device": "Ada's telephone", "version": "1"},
        True,
        ACTIVE,
    )
    await set_metadata(sessions, mine[0], {"device": "Ada's telephone", "version": "2"})
    stored = [dict(session.client_metadata) for session in await listed(sessions, mine[1])]
    assert stored == [{}, {}, {}, {}, {"device": "Ada's telephone", "version": "2"}]
    assert not (await set_metadata(sessions, mine[0], {})).client_metadata


async def test_metadata_stays_with_a_session_that_gets_a_new_token(
    sessions: "SessionServiceAsyncStub", mine: list[Headers]
) -> None:
    await set_metadata(sessions, mine[0], {"device": "a telephone"})
    renewed = await reauthenticate(sessions, mine[0])
    assert dict(renewed.session.client_metadata) == {"device": "a telephone"}


@pytest.mark.parametrize(
    "metadata",
    [
        {f"key {number}": "" for number in range(21)},
        {"": "x"},
        {"k" * 65: "x"},
        {"key": "x" * 257},
        {"key": "a\nb"},
        {"key": "\0"},
        {"k\ty": "x"},
    ],
)
async def test_metadata_over_its_limits_is_refused(
    sessions: "SessionServiceAsyncStub", client: Client, metadata: dict[str, str]
) -> None:
    me = await client.new_user()
    refused = await refusal(set_metadata(sessions, me.headers, metadata))
    assert (refused.code, refused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_MESSAGE")
    assert all(field.startswith("client_metadata") for field in refused.violations)


async def test_metadata_at_its_limits_is_stored(sessions: "SessionServiceAsyncStub", client: Client) -> None:
    metadata = {f"{number:02}" + "𝕂" * 62: "ü" * 256 for number in range(20)}
    assert dict((await set_metadata(sessions, (await client.new_user()).headers, metadata)).client_metadata) == metadata


async def test_session_of_a_password_has_no_provider(sessions: "SessionServiceAsyncStub", mine: list[Headers]) -> None:
    assert not any(session.HasField("provider") for session in await listed(sessions, mine[0]))


# --- get and list -----------------------------------------------------------------------------------------------------
async def test_get_session_without_an_id_returns_the_caller_s_session(
    sessions: "SessionServiceAsyncStub", client: Client
) -> None:
    await sign_up(client)
    opened = await sign_in(client)
    session = await session_of(sessions, bearer(opened.session_token))
    assert (session.id, session.current, session.status) == (opened.session.id, True, ACTIVE)
    assert session.peer == "127.0.0.1"
    assert session.user_agent.startswith("grpc-python-asyncio/")
    assert session.authenticated_at == session.last_used_at == session.created_at
    kept = session.expires_at.seconds - session.created_at.seconds
    idle = session.idle_expires_at.seconds - session.created_at.seconds
    assert (kept, idle) == (30 * 86_400, 14 * 86_400)


async def test_another_session_of_the_user_is_not_current(
    sessions: "SessionServiceAsyncStub", mine: list[Headers]
) -> None:
    other = await session_of(sessions, mine[1])
    session = await session_of(sessions, mine[0], other.id)
    assert (session.id, session.current, session.status) == (other.id, False, ACTIVE)


@pytest.mark.parametrize("method", ["GetSession", "RevokeSession"])
async def test_session_of_another_user_is_not_found_like_an_absent_one(
    sessions: "SessionServiceAsyncStub", client: Client, me: Person, method: str
) -> None:
    theirs = await client.new_user()
    absent = str(me.account_id)
    request = {"GetSession": GetSessionRequest, "RevokeSession": RevokeSessionRequest}[method]

    async def refused(session_id: str) -> Refusal:
        return await refusal(getattr(sessions, method)(request(session_id=session_id), metadata=me.headers))

    refusals = [await refused(str(theirs.session_id)), await refused(absent)]
    assert [each.metadata.pop("session_id") for each in refusals] == [str(theirs.session_id), absent]
    assert refusals[0] == refusals[1]
    assert (refusals[0].code, refusals[0].reason) == (grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND")
    assert (await session_of(sessions, theirs.headers)).status == ACTIVE


async def test_list_returns_only_the_user_s_sessions_newest_first_in_pages(
    sessions: "SessionServiceAsyncStub", client: Client, mine: list[Headers]
) -> None:
    await client.new_user()
    expected = [(await session_of(sessions, headers)).id for headers in reversed(mine)]
    for page_size in (1, 2, 4, 5, 0):
        found = await listed(sessions, mine[2], page_size=page_size)
        assert [session.id for session in found] == expected
        assert [session.current for session in found] == [False, False, True, False, False]


async def test_sessions_created_at_the_same_instant_are_each_listed_once(
    sessions: "SessionServiceAsyncStub", mine: list[Headers], dsn: str
) -> None:
    change(dsn, "UPDATE sessions SET created_at = now()")
    found = await listed(sessions, mine[0], page_size=2)
    assert len({session.id for session in found}) == len(found) == 5


async def test_ended_sessions_are_listed_on_request_with_their_status(
    sessions: "SessionServiceAsyncStub", mine: list[Headers], dsn: str
) -> None:
    ids = [(await session_of(sessions, headers)).id for headers in mine]
    change(dsn, "UPDATE sessions SET expires_at = now() WHERE id = %s", ids[0])
    change(dsn, "UPDATE sessions SET idle_expires_at = now() WHERE id = %s", ids[1])
    # The status is the first end: one session expired before it was revoked, another was revoked before it expired.
    change(dsn, "UPDATE sessions SET expires_at = now() - interval '1s', revoked_at = now() WHERE id = %s", ids[3])
    change(dsn, "UPDATE sessions SET expires_at = now(), revoked_at = now() - interval '1s' WHERE id = %s", ids[2])
    assert [session.id for session in await listed(sessions, mine[4])] == [ids[4]]
    found = await listed(sessions, mine[4], show_ended=True, page_size=3)
    assert {session.id: session.status for session in found} == dict(
        zip(ids, (EXPIRED, EXPIRED, REVOKED, EXPIRED, ACTIVE), strict=True)
    )
    for session in found:
        assert (await session_of(sessions, mine[4], session.id)).status == session.status


async def test_page_token_of_another_list_or_user_is_refused(
    sessions: "SessionServiceAsyncStub", client: Client, mine: list[Headers]
) -> None:
    page = await sessions.ListSessions(ListSessionsRequest(page_size=1), metadata=mine[0])
    other = await client.new_user()
    for headers, request in (
        (other.headers, ListSessionsRequest(page_token=page.next_page_token)),
        (mine[0], ListSessionsRequest(page_token=page.next_page_token, show_ended=True)),
        (mine[0], ListSessionsRequest(page_token=page.next_page_token[:-1])),
    ):
        refused = await refusal(sessions.ListSessions(request, metadata=headers))
        assert refused.reason == "PAGE_TOKEN_INVALID"
    await sessions.ListSessions(ListSessionsRequest(page_token=page.next_page_token), metadata=mine[1])


# --- revoke -----------------------------------------------------------------------------------------------------------
async def test_revoked_session_is_refused_on_its_next_call_and_others_remain_valid(
    sessions: "SessionServiceAsyncStub", mine: list[Headers]
) -> None:
    gone = await session_of(sessions, mine[1])
    for _ in range(2):  # the second call has no effect
        await sessions.RevokeSession(RevokeSessionRequest(session_id=gone.id), metadata=mine[0])
    assert await is_refused(sessions, mine[1])
    assert (await session_of(sessions, mine[0], gone.id)).status == REVOKED
    assert (await session_of(sessions, mine[2])).status == ACTIVE


async def test_session_may_revoke_itself(sessions: "SessionServiceAsyncStub", me: Person) -> None:
    await sessions.RevokeSession(RevokeSessionRequest(session_id=str(me.session_id)), metadata=me.headers)
    assert await is_refused(sessions, me.headers)


async def test_all_other_sessions_are_revoked_and_the_active_ones_counted(
    sessions: "SessionServiceAsyncStub", client: Client, mine: list[Headers], dsn: str
) -> None:
    other = await client.new_user()
    expired = (await session_of(sessions, mine[3])).id
    change(dsn, "UPDATE sessions SET expires_at = now() WHERE id = %s", expired)
    response = await sessions.RevokeOtherSessions(RevokeOtherSessionsRequest(), metadata=mine[0])
    assert response.revoked_count == 3
    for headers in mine[1:]:
        assert await is_refused(sessions, headers)
    for headers in (mine[0], other.headers):
        assert (await session_of(sessions, headers)).status == ACTIVE


@pytest.mark.parametrize("column", ["expires_at", "idle_expires_at"])
async def test_session_past_its_expiry_is_refused(
    sessions: "SessionServiceAsyncStub", me: Person, dsn: str, column: str
) -> None:
    change(dsn, f"UPDATE sessions SET {column} = now()")
    assert await is_refused(sessions, me.headers)


async def test_session_in_use_does_not_expire_as_idle(
    sessions: "SessionServiceAsyncStub", me: Person, dsn: str
) -> None:
    hour = "interval '1 hour'"
    change(
        dsn,
        f"UPDATE sessions SET last_used_at = now() - {hour}, idle_expires_at = now() + {hour}, expires_at = 'infinity'",
    )
    change(dsn, "UPDATE sessions SET expires_at = now() + interval '30 days'")
    session = await session_of(sessions, me.headers)
    assert session.idle_expires_at.seconds - session.last_used_at.seconds == 14 * 86_400
    assert session.last_used_at.seconds - session.created_at.seconds < 60


async def _revoke(here: Client, person: Person) -> None:
    request = RevokeSessionRequest(session_id=str(person.session_id))
    await SessionServiceStub(here.channel).RevokeSession(request, metadata=person.headers)


async def _sign_out(here: Client, person: Person) -> None:
    await here.accounts.SignOut(SignOutRequest(), metadata=person.headers)


async def _delete(here: Client, person: Person) -> None:
    await here.accounts.DeleteAccount(DeleteAccountRequest(), metadata=person.headers)


async def _ban(here: Client, person: Person) -> None:
    async with here.database.transaction() as tx:
        await accounts.ban_account(tx, account_id=person.account_id)
        await queries.revoke_sessions_of_account(tx, account_id=person.account_id)


@pytest.mark.parametrize("end", [_revoke, _sign_out, _delete, _ban])
async def test_session_that_ends_is_refused_on_the_next_call_in_every_gateway(
    sessions: "SessionServiceAsyncStub",
    elsewhere: "SessionServiceAsyncStub",
    client: Client,
    me: Person,
    end: Callable[[Client, Person], Awaitable[None]],
) -> None:
    for gateway in (sessions, elsewhere):
        await session_of(gateway, me.headers)
    await end(client, me)
    for gateway in (sessions, elsewhere):
        await until_refused(gateway, me.headers)
        assert await is_refused(gateway, me.headers)


# --- reauthenticate ---------------------------------------------------------------------------------------------------
@pytest.fixture
async def stale(client: Client, dsn: str) -> Headers:
    """A session whose user signed in more than ten minutes ago."""
    await sign_up(client)
    headers = bearer((await sign_in(client)).session_token)
    change(dsn, "UPDATE sessions SET authenticated_at = now() - interval '10 minutes 1 second'")
    return headers


async def test_call_that_requires_a_recent_sign_in_is_refused_until_reauthentication(
    sessions: "SessionServiceAsyncStub", stale: Headers
) -> None:
    for call in (
        sessions.RevokeOtherSessions(RevokeOtherSessionsRequest(), metadata=stale),
        sessions.RevokeSession(RevokeSessionRequest(session_id=(await session_of(sessions, stale)).id), metadata=stale),
    ):
        assert (await refusal(call)).reason == "SIGN_IN_NOT_FRESH"
    fresh = bearer((await reauthenticate(sessions, stale)).session_token)
    await sessions.RevokeOtherSessions(RevokeOtherSessionsRequest(), metadata=fresh)


async def test_reauthenticating_changes_the_token_of_the_same_session_in_every_gateway(
    sessions: "SessionServiceAsyncStub", elsewhere: "SessionServiceAsyncStub", stale: Headers
) -> None:
    before = await session_of(sessions, stale)
    await session_of(elsewhere, stale)
    response = await reauthenticate(sessions, stale)
    assert bearer(response.session_token) != stale
    assert (response.session.id, response.session.current, response.session.status) == (before.id, True, ACTIVE)
    assert response.session.authenticated_at.seconds > before.authenticated_at.seconds
    assert response.session.expires_at == before.expires_at
    for gateway in (sessions, elsewhere):
        await until_refused(gateway, stale)
        assert (await session_of(gateway, bearer(response.session_token))).id == before.id
    assert await is_refused(sessions, stale)


async def test_wrong_password_does_not_reauthenticate(sessions: "SessionServiceAsyncStub", stale: Headers) -> None:
    refused = await refusal(reauthenticate(sessions, stale, PASSWORD + "!"))
    assert refused.reason == "PASSWORD_WRONG"
    others = sessions.RevokeOtherSessions(RevokeOtherSessionsRequest(), metadata=stale)
    assert (await refusal(others)).reason == "SIGN_IN_NOT_FRESH"


async def test_reauthentication_of_an_account_without_a_password_is_refused_as_a_wrong_password(
    sessions: "SessionServiceAsyncStub", stale: Headers, dsn: str
) -> None:
    remove_password(dsn, EMAIL)
    assert (await refusal(reauthenticate(sessions, stale))).reason == "PASSWORD_WRONG"


async def test_reauthentication_is_refused_when_the_password_is_changed_while_it_is_verified(
    sessions: "SessionServiceAsyncStub", stale: Headers, dsn: str
) -> None:
    async with hash_changed_during(dsn, outdated_hash(OTHER_PASSWORD)):
        call = asyncio.ensure_future(refusal(reauthenticate(sessions, stale)))
    assert (await call).reason == "PASSWORD_WRONG"


async def test_reauthentication_succeeds_when_the_hash_is_renewed_while_the_password_is_verified(
    sessions: "SessionServiceAsyncStub", stale: Headers, dsn: str
) -> None:
    async with hash_changed_during(dsn, outdated_hash()):
        call = asyncio.ensure_future(reauthenticate(sessions, stale))
    assert (await call).session_token


async def test_password_guesses_at_reauthentication_are_limited_and_the_session_remains_valid(
    sessions: "SessionServiceAsyncStub", stale: Headers
) -> None:
    stale = bearer((await reauthenticate(sessions, stale)).session_token)  # a success does not count
    refusals = [await refusal(reauthenticate(sessions, stale, PASSWORD + "!")) for _ in range(11)]
    assert [refused.reason for refused in refusals] == ["PASSWORD_WRONG"] * 10 + ["RATE_LIMITED"]
    assert (await refusal(reauthenticate(sessions, stale))).reason == "RATE_LIMITED"
    assert (await session_of(sessions, stale)).status == ACTIVE


async def test_one_of_many_concurrent_reauthentications_with_one_token_returns_a_new_token(
    sessions: "SessionServiceAsyncStub", stale: Headers
) -> None:
    async def attempt() -> ReauthenticateResponse | str:
        try:
            return await reauthenticate(sessions, stale)
        except grpc.aio.AioRpcError as error:
            return error.code().name

    results = await asyncio.gather(*(attempt() for _ in range(6)))
    assert sorted(result for result in results if isinstance(result, str)) == ["UNAUTHENTICATED"] * 5
    (response,) = [result for result in results if isinstance(result, ReauthenticateResponse)]
    assert (await session_of(sessions, bearer(response.session_token))).status == ACTIVE


async def test_changes_of_sessions_are_audited(
    sessions: "SessionServiceAsyncStub", mine: list[Headers], dsn: str
) -> None:
    me, other = await session_of(sessions, mine[0]), await session_of(sessions, mine[1])
    await sessions.RevokeSession(RevokeSessionRequest(session_id=other.id), metadata=mine[0])
    await sessions.RevokeOtherSessions(RevokeOtherSessionsRequest(), metadata=mine[0])
    await refusal(reauthenticate(sessions, mine[0], PASSWORD + "!"))
    await reauthenticate(sessions, mine[0])
    with psycopg.connect(dsn) as connection:
        query = (
            "SELECT method, code, reason, account_id::text, target FROM audit_events"
            " WHERE method LIKE '%SessionService%' ORDER BY occurred_at"
        )
        events = connection.execute(query).fetchall()
    account = me.account_id
    assert [(event[0].rpartition("/")[2], *event[1:]) for event in events] == [
        ("RevokeSession", "OK", None, account, other.id),
        ("RevokeOtherSessions", "OK", None, account, account),
        ("Reauthenticate", events[2][1], "PASSWORD_WRONG", account, me.id),
        ("Reauthenticate", "OK", None, account, me.id),
    ]
