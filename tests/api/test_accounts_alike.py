"""No response reveals whether an e-mail address has an account, or of which kind (ASVS 5.0, 6.3.8).

The benchmarks measure that responses take the same time. These tests check that they take the same work.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import pytest

from accord.accounts.v1.accounts_pb2 import (
    RequestPasswordResetRequest,
    ResendVerificationEmailRequest,
    SignInRequest,
    SignUpRequest,
    VerifyEmailRequest,
)
from accord_api.outbox import Mail
from accord_auth.passwords import Passwords
from accord_db.engine.metrics import metrics
from tests.api.conftest import Client, Refusal, refusal
from tests.api.mailbox import mailed_token
from tests.api.signing_in import OTHER_PASSWORD, PASSWORD, ban, remove_password, sign_up
from tests.conftest import change

Call = Callable[[Client, str], Awaitable[object]]

UNKNOWN = "unknown@example.com"
ADDRESSES = {name: f"{name}@example.com" for name in ("verified", "unverified", "banned", "provider-only", "deleted")}


@pytest.fixture
async def addresses(client: Client, dsn: str) -> dict[str, str]:
    """The e-mail address of one account of each kind, and one without an account."""
    for email in ADDRESSES.values():
        await sign_up(client, email)
        if not email.startswith("unverified"):
            token = await mailed_token(client.database, email, Mail.VERIFY_EMAIL)
            await client.accounts.VerifyEmail(VerifyEmailRequest(token=token))
    ban(dsn, ADDRESSES["banned"])
    remove_password(dsn, ADDRESSES["provider-only"])
    change(dsn, "UPDATE accounts SET deleted_at = now() WHERE email = %s", ADDRESSES["deleted"])
    return ADDRESSES | {"unknown": UNKNOWN}


async def sign_up_again(client: Client, email: str) -> object:
    return await client.accounts.SignUp(SignUpRequest(email=email, password=OTHER_PASSWORD, display_name="Another"))


async def request_reset(client: Client, email: str) -> object:
    return await client.accounts.RequestPasswordReset(RequestPasswordResetRequest(email=email))


async def resend(client: Client, email: str) -> object:
    return await client.accounts.ResendVerificationEmail(ResendVerificationEmailRequest(email=email))


async def sign_in_with_a_wrong_password(client: Client, email: str) -> Refusal:
    return await refusal(client.accounts.SignIn(SignInRequest(email=email, password=OTHER_PASSWORD)))


CALLS = pytest.mark.parametrize("call", [sign_up_again, request_reset, resend, sign_in_with_a_wrong_password])


@CALLS
async def test_every_kind_of_account_and_an_unknown_one_get_the_same_response(
    client: Client, addresses: dict[str, str], call: Call
) -> None:
    responses = [await call(client, email) for email in addresses.values()]
    assert all(response == responses[0] for response in responses), responses


async def test_right_password_of_an_account_that_cannot_sign_in_gets_the_response_of_a_wrong_one(
    client: Client, addresses: dict[str, str]
) -> None:
    wrong = await sign_in_with_a_wrong_password(client, addresses["verified"])
    assert wrong.reason == "SIGN_IN_REFUSED"
    for kind in ("banned", "provider-only", "deleted", "unknown"):
        request = SignInRequest(email=addresses[kind], password=PASSWORD)
        assert await refusal(client.accounts.SignIn(request)) == wrong, kind


@CALLS
async def test_every_kind_of_account_and_an_unknown_one_cause_the_same_work(
    client: Client, addresses: dict[str, str], call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    work_by_kind = {}
    for kind, email in addresses.items():
        with counted(monkeypatch) as work:
            await call(client, email)
        work_by_kind[kind] = +work
    expected = work_by_kind["unknown"]
    assert expected["insert audit_events"] == 1
    assert expected["argon2"] == (call in (sign_up_again, sign_in_with_a_wrong_password))
    if call is sign_up_again:  # a new account stores a token, an existing one reads its owner: one statement each
        work_by_kind = {kind: Counter({"statements": work.total()}) for kind, work in work_by_kind.items()}
    assert work_by_kind == dict.fromkeys(work_by_kind, work_by_kind["unknown"])


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """Counts statements by operation and table, and hashed or verified passwords."""
    work, in_thread = Counter[str](), Passwords._in_thread

    async def counting(self: Passwords, hash_or_verify: Callable[[], object]) -> object:
        work["argon2"] += 1
        return await in_thread(self, hash_or_verify)

    before = _statements()
    with monkeypatch.context() as patched:
        patched.setattr(Passwords, "_in_thread", counting)
        yield work
    work.update(_statements())
    work.subtract(before)


def _statements() -> Counter[str]:
    samples = [sample for family in metrics().queries.collect() for sample in family.samples]
    return Counter(
        {
            f"{sample.labels['operation']} {sample.labels['table']}": int(sample.value)
            for sample in samples
            if sample.name == "db_queries_total"
        }
    )
