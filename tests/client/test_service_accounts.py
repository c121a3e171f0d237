"""The token of a service account is had when it is needed, renewed before it ends, and once for all who wait."""

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
from tests.client.scripted import Asked, Script, Scripted

ACCOUNT = ServiceAccount("0198c0de-0000-7000-8000-000000000001", "the secret", "billing")
AT_ONCE = 20

Call = Callable[..., Awaitable[Any]]


class Issuer:
    """Gives tokens by number, good for as long as the test says, and refuses those that were taken back."""

    def __init__(self, server: Scripted) -> None:
        self.server = server
        self.lifetime = 300.0
        self.taken_back: set[str] = set()
        self.refusal: RpcError | None = None
        self.may_issue = threading.Event()
        self.may_issue.set()
        server.scripts |= {"IssueToken": self._issue, "GetTask": self.answering(GetTaskResponse())}

    @property
    def issued(self) -> int:
        return len(self.server.of("IssueToken"))

    def take_back(self) -> None:
        self.taken_back.add(f"Bearer token {self.issued}")

    def _issue(self, asked: Asked) -> IssueTokenResponse | RpcError:
        self.may_issue.wait(30)
        lifetime = Duration()
        lifetime.FromNanoseconds(int(self.lifetime * 1e9))
        return self.refusal or IssueTokenResponse(access_token=f"token {asked.attempt}", expires_in=lifetime)

    def answering(self, answer: Message) -> Script:
        """A script that answers those who have a good token."""

        def script(asked: Asked) -> Message | RpcError:
            sent = asked.header("authorization")
            if sent is None or sent in self.taken_back:
                return RpcError(Reason.REASON_CREDENTIAL_INVALID)
            return answer

        return script


@pytest.fixture
def issuer(scripted: Scripted) -> Iterator[Issuer]:
    issuer = Issuer(scripted)
    yield issuer
    issuer.may_issue.set()


@pytest.fixture(params=["threads", "asyncio"])
async def get(request: pytest.FixtureRequest, issuer: Issuer) -> AsyncIterator[Call]:
    """Calls GetTask as the service, from a thread or from asyncio."""
    if request.param == "threads":
        with (
            accord_client.open_channel(issuer.server.address, credentials=ACCOUNT, tls=None) as channel,
            ThreadPoolExecutor(AT_ONCE) as threads,
        ):
            loop, threaded = asyncio.get_running_loop(), TaskServiceStub(channel).GetTask
            yield lambda **options: loop.run_in_executor(threads, lambda: threaded(GetTaskRequest(), **options))
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


async def test_token_is_issued_for_the_first_call_and_kept(get: Call, issuer: Issuer) -> None:
    for _ in range(3):
        await get()
    [issuing] = issuer.server.of("IssueToken")
    assert IssueTokenRequest.FromString(issuing.request) == IssueTokenRequest(
        client_id=ACCOUNT.client_id, client_secret=ACCOUNT.client_secret, audience=ACCOUNT.audience
    )
    assert issuing.header("authorization") is None
    assert {asked.header("authorization") for asked in issuer.server.of("GetTask")} == {"Bearer token 1"}


async def test_callers_at_once_wait_for_one_token(get: Call, issuer: Issuer) -> None:
    issuer.may_issue.clear()
    calls = [asyncio.ensure_future(get()) for _ in range(AT_ONCE)]
    await until(lambda: issuer.issued > 0)
    issuer.may_issue.set()
    await asyncio.gather(*calls)
    assert issuer.issued == 1
    assert len(issuer.server.of("GetTask")) == AT_ONCE


async def test_token_that_is_about_to_end_is_renewed(get: Call, issuer: Issuer) -> None:
    issuer.lifetime = 0
    await get()
    issuer.lifetime = 300
    await get()
    await get()
    assert [asked.header("authorization") for asked in issuer.server.of("GetTask")] == [
        "Bearer token 1",
        "Bearer token 2",
        "Bearer token 2",
    ]


def test_token_is_due_when_a_fifth_of_its_time_is_left() -> None:
    token = Token.of(IssueTokenResponse(access_token="token", expires_in=Duration(seconds=300)), requested_at=1000)
    assert (token.due_at, token.expires_at) == (1240, 1300)


async def test_refused_token_is_renewed_once_and_the_call_repeated(get: Call, issuer: Issuer) -> None:
    await get()
    issuer.take_back()
    await get()
    assert issuer.issued == 2
    assert [asked.header("authorization") for asked in issuer.server.of("GetTask")] == [
        "Bearer token 1",
        "Bearer token 1",
        "Bearer token 2",
    ]


async def test_callers_at_once_whose_token_is_refused_wait_for_one_other(get: Call, issuer: Issuer) -> None:
    await get()
    issuer.take_back()
    issuer.may_issue.clear()
    calls = [asyncio.ensure_future(get()) for _ in range(AT_ONCE)]
    await until(lambda: issuer.issued > 1)
    issuer.may_issue.set()
    await asyncio.gather(*calls)
    assert issuer.issued == 2


async def test_token_is_not_given_up_for_a_call_that_was_sent_with_the_one_before(get: Call, issuer: Issuer) -> None:
    await get()
    issuer.take_back()
    late, answer = threading.Event(), issuer.server.scripts["GetTask"]

    def second_is_late(asked: Asked) -> Message | RpcError:
        if asked.attempt == 2:
            late.wait(30)
        return answer(asked)

    issuer.server.scripts["GetTask"] = second_is_late
    slow = asyncio.ensure_future(get())
    await until(lambda: len(issuer.server.of("GetTask")) == 2)
    await get()
    late.set()
    await slow
    assert issuer.issued == 2


async def test_call_that_is_refused_for_something_else_is_not_repeated(get: Call, issuer: Issuer) -> None:
    issuer.server.scripts["GetTask"] = lambda asked: RpcError(Reason.REASON_TASK_NOT_FOUND)
    for _ in range(2):
        with pytest.raises(errors.TaskNotFound):
            await get()
    assert len(issuer.server.of("GetTask")) == 2
    assert issuer.issued == 1


async def test_call_that_is_refused_twice_is_given_up(get: Call, issuer: Issuer) -> None:
    issuer.taken_back |= {f"Bearer token {number}" for number in range(1, 10)}
    with pytest.raises(errors.CredentialInvalid):
        await get()
    assert len(issuer.server.of("GetTask")) == 2


async def test_renewal_that_fails_is_no_fault_while_the_token_is_good(
    get: Call, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await get()
    monkeypatch.setattr(Token, "is_due", lambda token: True)
    issuer.refusal = RpcError(Reason.REASON_RATE_LIMITED, retry_after=1)
    await get()
    assert issuer.issued == 2
    assert issuer.server.of("GetTask")[-1].header("authorization") == "Bearer token 1"


async def test_secret_that_is_wrong_is_what_the_call_fails_with(get: Call, issuer: Issuer) -> None:
    issuer.refusal = RpcError(Reason.REASON_CLIENT_INVALID)
    with pytest.raises(errors.ClientInvalid):
        await get()
    assert issuer.server.of("GetTask") == []
    issuer.refusal = None
    await get()


async def test_wait_for_a_token_ends_with_the_deadline(get: Call, issuer: Issuer) -> None:
    issuer.may_issue.clear()
    with pytest.raises(errors.DeadlineExceeded):
        await get(timeout=0.1)
    issuer.may_issue.set()
    await get()
    assert issuer.issued == 1


async def test_caller_who_gives_up_does_not_spoil_it_for_those_who_wait(issuer: Issuer) -> None:
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


async def test_stream_that_is_refused_is_begun_again(issuer: Issuer) -> None:
    messages, stubs, methods = probe()
    issuer.server.scripts["ServerStream"] = issuer.answering(messages.ProbeResponse(text="one"))
    issuer.taken_back.add("Bearer token 1")
    address = issuer.server.address
    with accord_client.open_channel(address, credentials=ACCOUNT, tls=None, methods=methods) as channel:
        stream = stubs.ProbeServiceStub(channel).ServerStream(messages.ProbeRequest())
        assert [answer.text for answer in stream] == ["one", "one"]
    issuer.take_back()
    issuer.taken_back.add("Bearer token 3")
    async with accord_client.aio.open_channel(address, credentials=ACCOUNT, tls=None, methods=methods) as aio:
        stream = stubs.ProbeServiceStub(aio).ServerStream(messages.ProbeRequest())
        assert [answer.text async for answer in stream] == ["one", "one"]
    assert [asked.header("authorization") for asked in issuer.server.of("ServerStream")] == [
        f"Bearer token {number}" for number in (1, 2, 2, 3, 4, 4)
    ]


async def test_stream_that_is_refused_after_an_answer_is_not_begun_again(issuer: Issuer) -> None:
    """Whoever reads it would see the first answers twice."""
    messages, stubs, methods = probe()
    issuer.server.scripts["ServerStream"] = lambda asked: (
        messages.ProbeResponse() if asked.attempt % 2 else RpcError(Reason.REASON_CREDENTIAL_INVALID)
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
    assert len(issuer.server.of("ServerStream")) == 4


async def test_stream_of_requests_that_is_refused_is_not_but_the_next_has_another_token(issuer: Issuer) -> None:
    messages, stubs, methods = probe()
    issuer.server.scripts["ClientStream"] = issuer.answering(messages.ProbeResponse(text="one"))
    issuer.taken_back |= {"Bearer token 1", "Bearer token 3"}
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
    assert [asked.header("authorization") for asked in issuer.server.of("ClientStream")] == [
        f"Bearer token {number}" for number in (1, 2, 3, 4)
    ]


def test_future_is_repeated_when_its_result_is_asked_for(issuer: Issuer) -> None:
    with accord_client.open_channel(issuer.server.address, credentials=ACCOUNT, tls=None) as channel:
        tasks = TaskServiceStub(channel)
        tasks.GetTask(GetTaskRequest())
        issuer.take_back()
        assert tasks.GetTask.future(GetTaskRequest()).result(10) == GetTaskResponse()
