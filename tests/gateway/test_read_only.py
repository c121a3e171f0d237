"""While the database takes no writes, calls are UNAVAILABLE with a retry delay, and health is NOT_SERVING."""

from collections.abc import Callable

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from accord.accounts.v1.accounts_pb2 import SignInRequest, SignUpRequest
from accord.accounts.v1.accounts_pb2_grpc import AccountServiceStub
from accord_postgres import EmbeddedPostgres
from tests.db.programs import READ_ONLY, make_read_only, make_writable
from tests.gateway.conftest import GatewayProcess, Start, eventually, healthy

PASSWORD = "a sentence that only I know"


def sign_up(channel: grpc.Channel) -> None:
    request = SignUpRequest(email="ada@example.com", password=PASSWORD, display_name="Ada")
    AccountServiceStub(channel).SignUp(request, timeout=20)


def sign_in(channel: grpc.Channel) -> None:
    AccountServiceStub(channel).SignIn(SignInRequest(email="ada@example.com", password=PASSWORD), timeout=20)


def require_unavailable(call: Callable[[grpc.Channel], None], channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as error:
        call(channel)
    assert error.value.code() == grpc.StatusCode.UNAVAILABLE
    trailers = {datum.key: datum.value for datum in error.value.trailing_metadata()}
    info, retry = ErrorInfo(), RetryInfo()
    details = Status.FromString(trailers["grpc-status-details-bin"]).details
    assert details[0].Unpack(info)
    assert details[1].Unpack(retry)
    assert info.reason == "UNAVAILABLE"
    assert retry.retry_delay.seconds > 0


def unhealthy(gateway: GatewayProcess) -> bool | None:
    return not healthy(gateway.address) or None


@pytest.mark.parametrize("way", READ_ONLY)
def test_writes_are_unavailable_and_health_is_not_serving_until_the_database_takes_writes(
    start: Start, separate_postgres: EmbeddedPostgres, way: str
) -> None:
    gateway = start(DATABASE_URL=separate_postgres.dsn)
    with grpc.insecure_channel(gateway.address) as channel:
        sign_up(channel)
        make_read_only(separate_postgres, way)
        for _ in range(2):
            require_unavailable(sign_in, channel)
            require_unavailable(sign_up, channel)
        eventually(lambda: unhealthy(gateway), gateway)
        assert "read-only" in str(gateway.event("not_serving"))
        make_writable(separate_postgres, way)
        eventually(lambda: healthy(gateway.address) or None, gateway)
        sign_in(channel)
    assert "INTERNAL" not in gateway.output
    assert gateway.stop() == 0


@pytest.mark.parametrize("way", READ_ONLY)
def test_gateway_started_on_a_read_only_database_waits_until_it_takes_writes(
    start: Start, separate_postgres: EmbeddedPostgres, way: str
) -> None:
    make_read_only(separate_postgres, way)
    gateway = start(DATABASE_URL=separate_postgres.dsn)
    assert "read-only" in str(gateway.event("database_unreachable")["reason"])
    make_writable(separate_postgres, way)
    assert healthy(gateway.address)


def test_gateway_gives_up_on_a_database_that_stays_read_only(start: Start, separate_postgres: EmbeddedPostgres) -> None:
    make_read_only(separate_postgres, "standby.signal")
    gateway = start(DATABASE_URL=separate_postgres.dsn, DB_START_WAIT="1s")
    assert gateway.process.wait(30) == 1
    assert "session is read-only" in gateway.output.splitlines()[-2]
    assert "Traceback" not in gateway.output
