"""Nobody learns from an answer whether an address has an account, or what kind (ASVS 5.0, 6.3.8).

That answers take the same time is measured in the benchmarks; here it is that they take the same work.
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
from tests.api.signing_in import OTHER_PASSWORD, PASSWORD, ban, forget_password, sign_up
from tests.conftest import change

Call = Callable[[Client, str], Awaitable[object]]

UNKNOWN = "unknown@example.com"
ADDRESSES = {name: f"{name}@example.com" for name in ("verified", "unverified", "banned", "provider-only", "deleted")}


@pytest.fixture
async def addresses(client: Client, dsn: str) -> dict[str, str]:
    """One of each kind of account, and one of none."""
    for email in ADDRESSES.values():
        await sign_up(client, email)
        if not email.startswith("unverified"):
            token = await mailed_token(client.database, email, Mail.VERIFY_EMAIL)
            await client.accounts.VerifyEmail(VerifyEmailRequest(token=token))
    ban(dsn, ADDRESSES["banned"])
    forget_password(dsn, ADDRESSES["provider-only"])
    change(dsn, "UPDATE accounts SET deleted_at = now() WHERE email = %s", ADDRESSES["deleted"])
    return ADDRESSES | {"unknown": UNKNOWN}


async def sign_up_again(client: Client, email: str) -> object:
    return await client.accounts.SignUp(SignUpRequest(email=email, password=OTHER_PASSWORD, display_name="Another"))


async def request_reset(client: Client, email: str) -> object:
    return await client.accounts.RequestPasswordReset(RequestPasswordResetRequest(email=email))


async def resend(client: Client, email: str) -> object:
    return await client.accounts.ResendVerificationEmail(ResendVerificationEmailRequest(email=email))


async def sign_in_wrongly(client: Client, email: str) -> Refusal:
    return await refusal(client.accounts.SignIn(SignInRequest(email=email, password=OTHER_PASSWORD)))


CALLS = pytest.mark.parametrize("call", [sign_up_again, request_reset, resend, sign_in_wrongly])


@CALLS
async def test_all_kinds_of_accounts_and_none_are_answered_alike(
    client: Client, addresses: dict[str, str], call: Call
) -> None:
    answers = [await call(client, email) for email in addresses.values()]
    assert all(answer == answers[0] for answer in answers), answers


async def test_right_password_of_an_account_that_cannot_sign_in_is_answered_like_a_wrong_one(
    client: Client, addresses: dict[str, str]
) -> None:
    wrong = await sign_in_wrongly(client, addresses["verified"])
    assert wrong.reason == "SIGN_IN_REFUSED"
    for kind in ("banned", "provider-only", "deleted", "unknown"):
        request = SignInRequest(email=addresses[kind], password=PASSWORD)
        assert await refusal(client.accounts.SignIn(request)) == wrong, kind


@CALLS
async def test_all_kinds_of_accounts_and_none_are_the_same_work(
    client: Client, addresses: dict[str, str], call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    works = {}
    for kind, email in addresses.items():
        with counted(monkeypatch) as work:
            await call(client, email)
        works[kind] = +work
    expected = works["unknown"]
    assert expected["insert audit_events"] == 1
    assert expected["argon2"] == (call in (sign_up_again, sign_in_wrongly))
    if call is sign_up_again:  # for a new account a token is kept, for another one its owner is looked up
        works = {kind: Counter({"statements": work.total()}) for kind, work in works.items()}
    assert works == dict.fromkeys(works, works["unknown"])


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """Statements, by what they do to which table, and passwords that are hashed or verified."""
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
