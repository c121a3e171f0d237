"""The client sends each credential in one header, and none to public methods."""

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
from tests.client.scripted import ScriptedServer, unavailable_until
from tests.factories import api_key_of, organization_of, signed_in_person

SENT = [
    (SessionToken("acs_token"), ("authorization", "Bearer acs_token")),
    (ServiceToken("token"), ("authorization", "Bearer token")),
    (ApiKey("ack_key"), ("x-api-key", "ack_key")),
]


@pytest.fixture
def responding(server: ScriptedServer) -> ScriptedServer:
    server.scripts["GetTask"] = unavailable_until(1, GetTaskResponse())
    server.scripts["SignIn"] = unavailable_until(1, SignInResponse())
    return server


def credentials_of(server: ScriptedServer) -> list[tuple[str, str]]:
    [call] = server.calls
    return [(name, value) for name, value in call.headers if name in ("authorization", "x-api-key")]


@pytest.mark.parametrize(("credentials", "header"), SENT)
async def test_credential_is_sent_in_one_header(
    responding: ScriptedServer, credentials: Credentials, header: tuple[str, str]
) -> None:
    with accord_client.open_channel(responding.address, credentials=credentials, tls=None) as channel:
        TaskServiceStub(channel).GetTask(GetTaskRequest())
    assert credentials_of(responding) == [header]
    responding.calls.clear()
    async with accord_client.aio.open_channel(responding.address, credentials=credentials, tls=None) as aio:
        await TaskServiceStub(aio).GetTask(GetTaskRequest())
    assert credentials_of(responding) == [header]


def test_no_credential_is_sent_to_public_methods(responding: ScriptedServer) -> None:
    with accord_client.open_channel(responding.address, credentials=SessionToken("token"), tls=None) as channel:
        AccountServiceStub(channel).SignIn(SignInRequest())
    assert credentials_of(responding) == []


def test_credential_of_a_call_overrides_the_credential_of_the_channel(responding: ScriptedServer) -> None:
    with accord_client.open_channel(responding.address, credentials=SessionToken("token"), tls=None) as channel:
        TaskServiceStub(channel).GetTask(GetTaskRequest(), metadata=(("x-api-key", "ack_key"),))
    assert credentials_of(responding) == [("x-api-key", "ack_key")]


def test_call_with_a_credential_that_cannot_be_renewed_is_not_retried(server: ScriptedServer) -> None:
    server.scripts["GetTask"] = lambda call: RpcError(Reason.REASON_CREDENTIAL_INVALID)
    with (
        accord_client.open_channel(server.address, credentials=SessionToken("token"), tls=None) as channel,
        pytest.raises(errors.CredentialInvalid),
    ):
        TaskServiceStub(channel).GetTask(GetTaskRequest())
    assert len(server.calls) == 1


async def test_gateway_accepts_every_kind_of_credential(gateway: tuple[object, str], database: Database) -> None:
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
def test_secrets_are_not_in_the_text_of_credentials(credentials: Credentials) -> None:
    assert "secret" not in repr(credentials) + str(credentials)
