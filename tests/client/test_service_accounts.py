"""The client requests a service account's token on the first call, renews it before it expires, and shares it between calls."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

import accord_client
import accord_client.aio
from accord.errors.v1.errors_pb2 import Reason
from accord.services.v1.services_pb2 import IssueTokenRequest, IssueTokenResponse
from accord.tasks.v1.tasks_pb2 import GetTaskRequest, GetTaskResponse
from accord.tasks.v1.tasks_pb2_grpc import TaskServiceStub
from accord_client import ServiceAccount, errors
from accord_client.contract import Methods, methods_of
from accord_client.service_tokens import Token
from accord_rpc.errors import RpcError
from tests.api.probe import generated
from tests.client.scripted import ReceivedCall, Script, ScriptedServer

ACCOUNT = ServiceAccount("0198c0de-0000-7000-8000-000000000001", "the secret", "billing")
CONCURRENT_CALLS = 20

Call = Callable[..., Awaitable[Any]]


class Issuer:
    """Issues numbered tokens, which are valid until they are revoked. `lifetime` is in seconds."""

    def __init__(self, server: ScriptedServer) -> None:
        self.server = server
        self.lifetime = 300.0
        self.revoked: set[str] = set()
        self.error: RpcError | None = None
        self.may_issue = threading.Event()
        self.may_issue.set()
        server.scripts |= {"IssueToken": self._issue, "GetTask": self.if_authenticated(GetTaskResponse())}

    @property
    def issued(self) -> int:
        return len(self.server.calls_of("IssueToken"))

    def revoke(self) -> None:
        self.revoked.add(f"Bearer token {self.issued}")

    def _issue(self, call: ReceivedCall) -> IssueTokenResponse | RpcError:
        self.may_issue.wait(30)
        lifetime = Duration()
        lifetime.FromNanoseconds(int(self.lifetime * 1e9))
        return self.error or IssueTokenResponse(access_token=f"token {call.attempt}", expires_in=lifetime)

    def if_authenticated(self, response: Message) -> Script:
        """A script that returns the response to calls with a valid token."""

        def script(call: ReceivedCall) -> Message | RpcError:
            sent = call.header("authorization")
            if sent is None or sent in self.revoked:
                return RpcError(Reason.REASON_CREDENTIAL_INVALID)
            return response

        return script


@pytest.fixture
def issuer(server: ScriptedServer) -> Iterator[Issuer]:
    issuer = Issuer(server)
    yield issuer
    issuer.may_issue.set()


@pytest.fixture(params=["threads", "asyncio"])
async def get(request: pytest.FixtureRequest, issuer: Issuer) -> AsyncIterator[Call]:
    """Calls GetTask with the service account, on a thread or with asyncio."""
    if request.param == "threads":
        with (
            accord_client.open_channel(issuer.server.address, credentials=ACCOUNT, tls=None) as channel,
            ThreadPoolExecutor(CONCURRENT_CALLS) as threads,
        ):
            loop, blocking = asyncio.get_running_loop(), TaskServiceStub(channel).GetTask
            yield lambda **options: loop.run_in_executor(threads, lambda: blocking(GetTaskRequest(), **options))
    else:
        async with accord_client.aio.open_channel(issuer.server.address, credentials=ACCOUNT, tls=None) as aio:
            stub = TaskServiceStub(aio)

            async def call(**options: Any) -> GetTaskResponse:
                return await stub.GetTask(GetTaskRequest(), **options)

            yield call


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


async def test_token_is_issued_for_the_first_call_and_reused(get: Call, issuer: Issuer) -> None:
    for _ in range(3):
        await get()
    [issue] = issuer.server.calls_of("IssueToken")
    assert IssueTokenRequest.FromString(issue.request) == IssueTokenRequest(
        client_id=ACCOUNT.client_id, client_secret=ACCOUNT.client_secret, audience=ACCOUNT.audience
    )
    assert issue.header("authorization") is None
    assert {call.header("authorization") for call in issuer.server.calls_of("GetTask")} == {"Bearer token 1"}


async def test_concurrent_calls_share_one_token(get: Call, issuer: Issuer) -> None:
    issuer.may_issue.clear()
    calls = [asyncio.ensure_future(get()) for _ in range(CONCURRENT_CALLS)]
    await until(lambda: issuer.issued > 0)
    issuer.may_issue.set()
    await asyncio.gather(*calls)
    assert issuer.issued == 1
    assert len(issuer.server.calls_of("GetTask")) == CONCURRENT_CALLS


async def test_expired_token_is_renewed(get: Call, issuer: Issuer) -> None:
    issuer.lifetime = 0
    await get()
    issuer.lifetime = 300
    await get()
    await get()
    assert [call.header("authorization") for call in issuer.server.calls_of("GetTask")] == [
        "Bearer token 1",
        "Bearer token 2",
        "Bearer token 2",
    ]


def test_token_is_due_when_a_fifth_of_its_lifetime_is_left() -> None:
    token = Token.of(IssueTokenResponse(access_token="token", expires_in=Duration(seconds=300)), requested_at=1000)
    assert (token.due_at, token.expires_at) == (1240, 1300)


async def test_rejected_token_is_renewed_once_and_the_call_is_retried(get: Call, issuer: Issuer) -> None:
    await get()
    issuer.revoke()
    await get()
    assert issuer.issued == 2
    assert [call.header("authorization") for call in issuer.server.calls_of("GetTask")] == [
        "Bearer token 1",
        "Bearer token 1",
        "Bearer token 2",
    ]


async def test_concurrent_calls_with_a_rejected_token_share_one_renewal(get: Call, issuer: Issuer) -> None:
    await get()
    issuer.revoke()
    issuer.may_issue.clear()
    calls = [asyncio.ensure_future(get()) for _ in range(CONCURRENT_CALLS)]
    await until(lambda: issuer.issued > 1)
    issuer.may_issue.set()
    await asyncio.gather(*calls)
    assert issuer.issued == 2


async def test_rejection_of_the_previous_token_does_not_renew_the_current_one(get: Call, issuer: Issuer) -> None:
    await get()
    issuer.revoke()
    may_respond, respond = threading.Event(), issuer.server.scripts["GetTask"]

    def delay_second_call(call: ReceivedCall) -> Message | RpcError:
        if call.attempt == 2:
            may_respond.wait(30)
        return respond(call)

    issuer.server.scripts["GetTask"] = delay_second_call
    slow = asyncio.ensure_future(get())
    await until(lambda: len(issuer.server.calls_of("GetTask")) == 2)
    await get()
    may_respond.set()
    await slow
    assert issuer.issued == 2


async def test_call_that_fails_for_another_reason_is_not_retried(get: Call, issuer: Issuer) -> None:
    issuer.server.scripts["GetTask"] = lambda call: RpcError(Reason.REASON_TASK_NOT_FOUND)
    for _ in range(2):
        with pytest.raises(errors.TaskNotFound):
            await get()
    assert len(issuer.server.calls_of("GetTask")) == 2
    assert issuer.issued == 1


async def test_call_is_not_retried_after_a_second_rejection(get: Call, issuer: Issuer) -> None:
    issuer.revoked |= {f"Bearer token {number}" for number in range(1, 10)}
    with pytest.raises(errors.CredentialInvalid):
        await get()
    assert len(issuer.server.calls_of("GetTask")) == 2


async def test_failed_renewal_is_ignored_while_the_token_is_valid(
    get: Call, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await get()
    monkeypatch.setattr(Token, "is_due", lambda token: True)
    issuer.error = RpcError(Reason.REASON_RATE_LIMITED, retry_after=1)
    await get()
    assert issuer.issued == 2
    assert issuer.server.calls_of("GetTask")[-1].header("authorization") == "Bearer token 1"


async def test_call_with_a_wrong_client_secret_raises_client_invalid(get: Call, issuer: Issuer) -> None:
    issuer.error = RpcError(Reason.REASON_CLIENT_INVALID)
    with pytest.raises(errors.ClientInvalid):
        await get()
    assert issuer.server.calls_of("GetTask") == []
    issuer.error = None
    await get()


async def test_wait_for_a_token_ends_at_the_deadline(get: Call, issuer: Issuer) -> None:
    issuer.may_issue.clear()
    with pytest.raises(errors.DeadlineExceeded):
        await get(timeout=0.1)
    issuer.may_issue.set()
    await get()
    assert issuer.issued == 1


async def test_cancelled_call_does_not_cancel_the_token_request_of_other_calls(issuer: Issuer) -> None:
    issuer.may_issue.clear()
    async with accord_client.aio.open_channel(issuer.server.address, credentials=ACCOUNT, tls=None) as aio:
        tasks = TaskServiceStub(aio)
        first = asyncio.ensure_future(_await(tasks.GetTask(GetTaskRequest())))
        await until(lambda: issuer.issued > 0)
        second = asyncio.ensure_future(_await(tasks.GetTask(GetTaskRequest())))
        await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        issuer.may_issue.set()
        assert await second == GetTaskResponse()
    assert issuer.issued == 1


async def _await(call: Awaitable[Any]) -> Any:
    return await call


def probe() -> tuple[Any, Any, Methods]:
    messages, stubs = generated()
    return messages, stubs, methods_of([messages.DESCRIPTOR.services_by_name["ProbeService"]])


async def test_stream_with_a_rejected_token_is_retried(issuer: Issuer) -> None:
    messages, stubs, methods = probe()
    issuer.server.scripts["ServerStream"] = issuer.if_authenticated(messages.ProbeResponse(text="one"))
    issuer.revoked.add("Bearer token 1")
    address = issuer.server.address
    with accord_client.open_channel(address, credentials=ACCOUNT, tls=None, methods=methods) as channel:
        stream = stubs.ProbeServiceStub(channel).ServerStream(messages.ProbeRequest())
        assert [response.text for response in stream] == ["one", "one"]
    issuer.revoke()
    issuer.revoked.add("Bearer token 3")
    async with accord_client.aio.open_channel(address, credentials=ACCOUNT, tls=None, methods=methods) as aio:
        stream = stubs.ProbeServiceStub(aio).ServerStream(messages.ProbeRequest())
        assert [response.text async for response in stream] == ["one", "one"]
    assert [call.header("authorization") for call in issuer.server.calls_of("ServerStream")] == [
        f"Bearer token {number}" for number in (1, 2, 2, 3, 4, 4)
    ]


async def test_stream_that_fails_after_a_response_is_not_retried(issuer: Issuer) -> None:
    """A retry would return the first responses twice."""
    messages, stubs, methods = probe()
    issuer.server.scripts["ServerStream"] = lambda call: (
        messages.ProbeResponse() if call.attempt % 2 else RpcError(Reason.REASON_CREDENTIAL_INVALID)
    )
    address = issuer.server.address
    with accord_client.open_channel(address, credentials=ACCOUNT, tls=None, methods=methods) as channel:
        stream = stubs.ProbeServiceStub(channel).ServerStream(messages.ProbeRequest())
        next(stream)
        with pytest.raises(errors.CredentialInvalid):
            next(stream)
    async with accord_client.aio.open_channel(address, credentials=ACCOUNT, tls=None, methods=methods) as aio:
        stream = stubs.ProbeServiceStub(aio).ServerStream(messages.ProbeRequest())
        await stream.read()
        with pytest.raises(errors.CredentialInvalid):
            await stream.read()
    assert len(issuer.server.calls_of("ServerStream")) == 4


async def test_stream_of_requests_is_not_retried_but_the_next_call_has_a_new_token(issuer: Issuer) -> None:
    messages, stubs, methods = probe()
    issuer.server.scripts["ClientStream"] = issuer.if_authenticated(messages.ProbeResponse(text="one"))
    issuer.revoked |= {"Bearer token 1", "Bearer token 3"}
    address = issuer.server.address
    with accord_client.open_channel(address, credentials=ACCOUNT, tls=None, methods=methods) as channel:
        send = stubs.ProbeServiceStub(channel).ClientStream
        with pytest.raises(errors.CredentialInvalid):
            send(iter([messages.ProbeRequest()]))
        send(iter([messages.ProbeRequest()]))
    async with accord_client.aio.open_channel(address, credentials=ACCOUNT, tls=None, methods=methods) as aio:
        send = stubs.ProbeServiceStub(aio).ClientStream
        with pytest.raises(errors.CredentialInvalid):
            await send(iter([messages.ProbeRequest()]))
        await send(iter([messages.ProbeRequest()]))
    assert [call.header("authorization") for call in issuer.server.calls_of("ClientStream")] == [
        f"Bearer token {number}" for number in (1, 2, 3, 4)
    ]


def test_future_with_a_rejected_token_is_retried_by_result(issuer: Issuer) -> None:
    with accord_client.open_channel(issuer.server.address, credentials=ACCOUNT, tls=None) as channel:
        tasks = TaskServiceStub(channel)
        tasks.GetTask(GetTaskRequest())
        issuer.revoke()
        assert tasks.GetTask.future(GetTaskRequest()).result(10) == GetTaskResponse()
