"""The secrets of services: the current one and the previous one are accepted, in the same time as any other."""

import hmac
from contextlib import suppress
from unittest.mock import patch
from uuid import uuid4

import pytest

from accord.errors.v1.errors_pb2 import Reason
from accord_auth.services import require_client
from accord_auth.tokens import token_hash
from accord_db.queries.services import Client
from accord_rpc.errors import RpcError
from accord_rpc.reasons import AnyReason


def client(*, previous: str | None = "previous") -> Client:
    hashed = None if previous is None else token_hash(previous)
    return Client(uuid4(), "billing", ["ledger", "mail"], token_hash("current"), hashed)


def refusal(found: Client | None, *, secret: str, audience: str = "ledger") -> AnyReason:
    with pytest.raises(RpcError) as refused:
        require_client(found, secret=secret, audience=audience)
    return refused.value.reason


@pytest.mark.parametrize("secret", ["current", "previous"])
@pytest.mark.parametrize("audience", ["ledger", "mail"])
def test_either_secret_gives_tokens_for_each_audience(secret: str, audience: str) -> None:
    require_client(client(), secret=secret, audience=audience)


@pytest.mark.parametrize("secret", ["", "another", "Current", "current "])
@pytest.mark.parametrize("previous", ["previous", None])
def test_another_secret_is_refused(secret: str, previous: str | None) -> None:
    assert refusal(client(previous=previous), secret=secret) == Reason.REASON_CLIENT_INVALID


def test_an_unknown_client_is_refused() -> None:
    assert refusal(None, secret="current") == Reason.REASON_CLIENT_INVALID


def test_another_audience_is_refused_after_the_secret_is_checked() -> None:
    assert refusal(client(), secret="current", audience="shop") == Reason.REASON_AUDIENCE_NOT_ALLOWED
    assert refusal(client(), secret="another", audience="shop") == Reason.REASON_CLIENT_INVALID


@pytest.mark.parametrize("found", [client(), client(previous=None), None], ids=["two secrets", "one secret", "unknown"])
@pytest.mark.parametrize("secret", ["current", "previous", "another"])
def test_the_same_comparisons_run_for_every_client_and_secret(found: Client | None, secret: str) -> None:
    with patch.object(hmac, "compare_digest", wraps=hmac.compare_digest) as compared, suppress(RpcError):
        require_client(found, secret=secret, audience="ledger")
    assert len(compared.call_args_list) == 2
    assert {len(side) for call in compared.call_args_list for side in call.args} == {32}
