"""E-mail addresses and names match in any case, also in a Turkish database, where `lower('I')` is not `i`."""

import asyncio
from collections.abc import Iterator
from uuid import uuid4

import psycopg
import pytest

from accord.accounts.v1.accounts_pb2 import (
    ChangeEmailRequest,
    RequestPasswordResetRequest,
    ResendVerificationEmailRequest,
    VerifyEmailRequest,
)
from accord.admin.v1.admin_pb2 import ListAccountsRequest
from accord.admin.v1.admin_pb2_grpc import AdminServiceStub
from accord.invitations.v1.invitations_pb2 import AcceptInvitationRequest, CreateInvitationRequest
from accord.invitations.v1.invitations_pb2_grpc import InvitationServiceStub
from accord.policy.v1.policy_pb2 import ROLE_MEMBER
from accord.roles.v1.roles_pb2 import CreateRoleRequest
from accord.roles.v1.roles_pb2_grpc import RoleServiceStub
from accord_api.linked_identities import Entered, LinkedIdentities
from accord_api.outbox import Mail, Outbox
from accord_auth.providers import Providers
from accord_auth.providers.provider_identity import Identity, Proof, ProviderSettings, Tokens
from accord_db import migrate
from accord_db.engine.scope import ALL, enter
from accord_gateway.cli.commands import get_account_locked
from accord_gateway.secret_key import keyring
from accord_gateway.settings import Settings
from accord_rpc.call import Call
from tests.api.conftest import SECRET_KEY, Client, outcome
from tests.api.mailbox import mailed, mailed_to_anyone, mailed_token
from tests.api.signing_in import OTHER_PASSWORD, sign_in, sign_up, signed_in
from tests.conftest import change, count, temporary_database
from tests.factories import Headers, Person, activate, organization_of
from tests.locales import turkish_database, turkish_server

EMAIL = "INFO@EXAMPLE-I.COM"
FOLDED = "info@example-i.com"


@pytest.fixture(scope="module")
def turkish(postgres: str) -> Iterator[str]:
    with turkish_server(postgres) as server:
        yield server


@pytest.fixture(scope="module")
def turkish_template(turkish: str) -> Iterator[str]:
    with turkish_database(turkish) as dsn:
        migrate.apply(dsn)
        with psycopg.connect(dsn) as connection:
            assert connection.execute("SELECT lower('INFO')").fetchone() == ("ınfo",)
        yield psycopg.conninfo.conninfo_to_dict(dsn)["dbname"]  # type: ignore[misc]  # a name


@pytest.fixture
def dsn(turkish: str, turkish_template: str) -> Iterator[str]:
    with temporary_database(turkish, template=turkish_template) as dsn:
        yield dsn


def addresses(dsn: str) -> list[str]:
    with psycopg.connect(dsn) as connection:
        return [email for (email,) in connection.execute("SELECT email FROM accounts ORDER BY id")]


def verify_all(dsn: str) -> None:
    change(dsn, "UPDATE accounts SET email_verified_at = now()")


async def test_sign_up_stores_the_folded_address_and_mails_the_token_there(client: Client, dsn: str) -> None:
    await sign_up(client, EMAIL)
    assert addresses(dsn) == [FOLDED]
    assert [to for to, _ in await mailed_to_anyone(client.database)] == [FOLDED]
    token = await mailed_token(client.database, FOLDED, Mail.VERIFY_EMAIL)
    await client.accounts.VerifyEmail(VerifyEmailRequest(token=token))


@pytest.mark.parametrize("email", [EMAIL, FOLDED, "Info@Example-I.com"])
async def test_sign_in_accepts_the_address_in_any_case(client: Client, email: str) -> None:
    await sign_up(client, "iNFO@example-I.com")
    assert (await sign_in(client, email)).session_token


async def test_concurrent_sign_ups_with_one_address_create_one_account(client: Client, dsn: str) -> None:
    spellings = [EMAIL, FOLDED, "Info@Example-I.com", "inFO@example-I.COM"]
    await asyncio.gather(*(sign_up(client, email) for email in spellings * 2))
    assert addresses(dsn) == [FOLDED]


async def test_failed_sign_ins_are_counted_per_account_in_any_case_of_its_email(client: Client) -> None:
    spellings = [EMAIL, FOLDED]
    outcomes = [await outcome(sign_in(client, spellings[number % 2], OTHER_PASSWORD)) for number in range(11)]
    assert outcomes == ["SIGN_IN_REFUSED"] * 10 + ["RATE_LIMITED"]


async def test_password_reset_and_verification_are_mailed_to_the_stored_address(client: Client) -> None:
    await sign_up(client, FOLDED)
    await client.accounts.RequestPasswordReset(RequestPasswordResetRequest(email=EMAIL))
    await client.accounts.ResendVerificationEmail(ResendVerificationEmailRequest(email=EMAIL))
    assert [letter.template for letter in await mailed(client.database, FOLDED)] == [
        Mail.VERIFY_EMAIL,
        Mail.RESET_PASSWORD,
        Mail.VERIFY_EMAIL,
    ]
    assert len(await mailed_to_anyone(client.database)) == 3


async def test_new_address_is_stored_folded(client: Client, dsn: str) -> None:
    headers = await signed_in(client, "user@example.com")
    await client.accounts.ChangeEmail(ChangeEmailRequest(new_email=EMAIL), metadata=headers)
    token = await mailed_token(client.database, FOLDED, Mail.CHANGE_EMAIL)
    await client.accounts.VerifyEmail(VerifyEmailRequest(token=token))
    assert addresses(dsn) == [FOLDED]


async def owner_of_an_organization(client: Client) -> Person:
    person = await client.new_user()
    await activate(client.database, person, await organization_of(client.database, person))
    return person


async def invite(client: Client, who: Person, email: str) -> None:
    request = CreateInvitationRequest(email=email, role=ROLE_MEMBER)
    await InvitationServiceStub(client.channel).CreateInvitation(request, metadata=who.headers)


async def accept(client: Client, headers: Headers) -> None:
    token = await mailed_token(client.database, FOLDED, Mail.INVITATION)
    request = AcceptInvitationRequest(token=token)
    await InvitationServiceStub(client.channel).AcceptInvitation(request, metadata=headers)


async def test_invitation_matches_the_account_with_the_email_in_any_case(client: Client, dsn: str) -> None:
    owner, headers = await owner_of_an_organization(client), await signed_in(client, FOLDED)
    verify_all(dsn)
    await invite(client, owner, EMAIL)
    assert await outcome(invite(client, owner, FOLDED)) == "INVITATION_EXISTS"
    await accept(client, headers)
    assert await outcome(invite(client, owner, EMAIL)) == "MEMBER_EXISTS"


async def test_role_names_are_unique_in_any_case_of_any_alphabet(client: Client) -> None:
    owner = await owner_of_an_organization(client)

    async def create(name: str) -> str:
        request = CreateRoleRequest(name=name)
        return await outcome(RoleServiceStub(client.channel).CreateRole(request, metadata=owner.headers))

    assert [await create(name) for name in ("BILLING", "Ärzte", "crème")] == ["OK"] * 3
    equal = ("billing", "Billing", "ÄRZTE", "A\u0308rzte", "CRE\u0300ME")
    assert [await create(name) for name in equal] == ["ROLE_NAME_TAKEN"] * len(equal)
    assert await create("bıllıng") == "OK"  # the dotless ı is another letter


async def test_administrator_finds_an_account_by_its_address_in_any_case(client: Client, dsn: str) -> None:
    await sign_up(client, EMAIL)
    admin = await client.new_user()
    change(dsn, "UPDATE accounts SET role = 'administrator' WHERE id = %s", admin.account_id)
    for prefix in ("INFO@EX", "info@ex", EMAIL):
        request = ListAccountsRequest(email_prefix=prefix)
        found = await AdminServiceStub(client.channel).ListAccounts(request, metadata=admin.headers)
        assert [account.email for account in found.accounts] == [FOLDED]


async def test_commands_find_an_account_by_its_address_in_any_case(client: Client) -> None:
    await sign_up(client, FOLDED)
    async with client.database.transaction() as tx:
        assert (await get_account_locked(tx, EMAIL)).email == FOLDED


@pytest.fixture
def identities(client: Client, gateway_settings: Settings) -> LinkedIdentities:
    keys = keyring(gateway_settings, SECRET_KEY)
    providers = Providers([], redirect_uris=frozenset(), database=client.database, keys=keys)
    return LinkedIdentities(providers, Outbox(keys), link_by_email=True)


def provider_proof(email: str) -> Proof:
    settings = ProviderSettings(
        name="corp", display_name="Corp", issuer="https://id.example.com", client_id="accord", client_secret=uuid4().hex
    )
    identity = Identity(issuer=settings.issuer, subject=uuid4().hex, email=email, email_verified=True, name="Ada")
    return Proof(settings, identity, Tokens("access", None, None))


async def provider_sign_in(client: Client, identities: LinkedIdentities) -> Entered:
    enter(Call(method="", request_id="", peer="", user_agent="", tenant=ALL))
    async with client.database.transaction() as tx:
        return await identities.enter(tx, provider_proof(EMAIL))


async def test_provider_sign_in_matches_the_account_with_the_email_in_any_case(
    client: Client, dsn: str, identities: LinkedIdentities
) -> None:
    await sign_up(client, FOLDED)
    verify_all(dsn)
    assert not (await provider_sign_in(client, identities)).is_new
    assert count(dsn, "accounts") == 1


async def test_provider_sign_in_creates_an_account_with_the_folded_address(
    client: Client, dsn: str, identities: LinkedIdentities
) -> None:
    assert (await provider_sign_in(client, identities)).is_new
    assert addresses(dsn) == [FOLDED]
    with psycopg.connect(dsn) as connection:
        assert connection.execute("SELECT count(email_verified_at) FROM accounts").fetchone() == (1,)
