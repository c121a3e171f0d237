"""Who calls is said once, in one header, and only where it is asked."""

import pytest

import accord_client
import accord_client.aio
from accord.accounts.v1.accounts_pb2 import SignInRequest, SignInResponse
from accord.accounts.v1.accounts_pb2_grpc import AccountServiceStub
from accord.errors.v1.errors_pb2 import Reason
from accord.services.v1.services_pb2 import ExchangeTokenRequest
from accord.services.v1.services_pb2_grpc import TokenServiceStub
from accord.tasks.v1.tasks_pb2 import GetTaskRequest, GetTaskResponse, ListTasksRequest
from accord.tasks.v1.tasks_pb2_grpc import TaskServiceStub
from accord_client import ApiKey, Credentials, ServiceAccount, ServiceToken, SessionToken, errors
from accord_db.engine.database import Database
from accord_rpc.errors import RpcError
from tests.api.services import new_service
from tests.client.scripted import Scripted, unavailable_until
from tests.factories import api_key_of, organization_of, signed_in_person

SENT = [
    (SessionToken("acs_token"), ("authorization", "Bearer acs_token")),
    (ServiceToken("token"), ("authorization", "Bearer token")),
    (ApiKey("ack_key"), ("x-api-key", "ack_key")),
]


@pytest.fixture
def answering(scripted: Scripted) -> Scripted:
    scripted.scripts["GetTask"] = unavailable_until(1, GetTaskResponse())
    scripted.scripts["SignIn"] = unavailable_until(1, SignInResponse())
    return scripted


def credentials_of(server: Scripted) -> list[tuple[str, str]]:
    [asked] = server.asked
    return [(name, value) for name, value in asked.headers if name in ("authorization", "x-api-key")]


@pytest.mark.parametrize(("credentials", "header"), SENT)
async def test_credential_goes_in_one_header(
    answering: Scripted, credentials: Credentials, header: tuple[str, str]
) -> None:
    with accord_client.open_channel(answering.address, credentials=credentials, tls=None) as channel:
        TaskServiceStub(channel).GetTask(GetTaskRequest())
    assert credentials_of(answering) == [header]
    answering.asked.clear()
    async with accord_client.aio.open_channel(answering.address, credentials=credentials, tls=None) as aio:
        await TaskServiceStub(aio).GetTask(GetTaskRequest())
    assert credentials_of(answering) == [header]


def test_public_methods_are_told_no_credential(answering: Scripted) -> None:
    with accord_client.open_channel(answering.address, credentials=SessionToken("token"), tls=None) as channel:
        AccountServiceStub(channel).SignIn(SignInRequest())
    assert credentials_of(answering) == []


def test_credential_of_a_call_goes_before_that_of_the_channel(answering: Scripted) -> None:
    with accord_client.open_channel(answering.address, credentials=SessionToken("token"), tls=None) as channel:
        TaskServiceStub(channel).GetTask(GetTaskRequest(), metadata=(("x-api-key", "ack_key"),))
    assert credentials_of(answering) == [("x-api-key", "ack_key")]


def test_credential_that_cannot_be_renewed_is_not_tried_again(scripted: Scripted) -> None:
    scripted.scripts["GetTask"] = lambda asked: RpcError(Reason.REASON_CREDENTIAL_INVALID)
    with (
        accord_client.open_channel(scripted.address, credentials=SessionToken("token"), tls=None) as channel,
        pytest.raises(errors.CredentialInvalid),
    ):
        TaskServiceStub(channel).GetTask(GetTaskRequest())
    assert len(scripted.asked) == 1


async def test_gateway_accepts_all_of_them(gateway: tuple[object, str], database: Database) -> None:
    person, service = await signed_in_person(database), await new_service(database)
    key = await api_key_of(database, person, await organization_of(database, person))
    account = ServiceAccount(str(service.id), service.secret)
    async with accord_client.aio.open_channel(gateway[1], credentials=account, tls=None) as aio:
        request = ExchangeTokenRequest(subject_token=person.token, audience=account.audience)
        exchanged = await TokenServiceStub(aio).ExchangeToken(request)
    for credentials in (SessionToken(person.token), ApiKey(key.key), ServiceToken(exchanged.access_token)):
        async with accord_client.aio.open_channel(gateway[1], credentials=credentials, tls=None) as aio:
            await TaskServiceStub(aio).ListTasks(ListTasksRequest())


@pytest.mark.parametrize(
    "credentials",
    [SessionToken("secret"), ServiceToken("secret"), ApiKey("secret"), ServiceAccount("client", "secret")],
)
def test_secrets_are_not_shown(credentials: Credentials) -> None:
    assert "secret" not in repr(credentials) + str(credentials)
