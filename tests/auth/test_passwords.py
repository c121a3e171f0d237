import asyncio
import threading
import time
from collections.abc import Awaitable, Iterator

import pytest
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError

from accord_auth.passwords import Passwords

PASSWORD = "correct horse battery staple"
EMAIL = "ada.lovelace@analytical-engine.example.com"


@pytest.fixture
def passwords() -> Iterator[Passwords]:
    made = Passwords()
    yield made
    made.close()


@pytest.fixture
def cheap() -> Iterator[Passwords]:
    """For tests that are not about the cost."""
    made = Passwords(time_cost=1, memory_kib=64)
    yield made
    made.close()


class Work:
    """Replaces argon2: ends when the test ends it, and counts."""

    def __init__(self) -> None:
        self.begun = self.at_a_time = self.most_at_a_time = 0
        self._ends = threading.Semaphore(0)
        self._counting = threading.Lock()

    def do(self, password: bytes) -> str:
        with self._counting:
            self.begun += 1
            self.at_a_time += 1
            self.most_at_a_time = max(self.most_at_a_time, self.at_a_time)
        assert self._ends.acquire(timeout=5)
        with self._counting:
            self.at_a_time -= 1
        return "a hash"

    def end(self, how_many: int) -> None:
        self._ends.release(how_many)

    async def until_begun(self, how_many: int) -> None:
        async with asyncio.timeout(5):
            while self.begun < how_many:
                await asyncio.sleep(0.001)


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Work:
    work = Work()
    monkeypatch.setattr(PasswordHasher, "hash", lambda _, password: work.do(password))
    return work


async def test_password_verifies_against_its_own_hash_only(passwords: Passwords) -> None:
    password_hash = await passwords.hash(PASSWORD)
    assert await passwords.verify(password_hash, PASSWORD)
    assert not await passwords.verify(password_hash, PASSWORD + "r")
    assert not await passwords.verify(await passwords.hash("another long password"), PASSWORD)


async def test_hash_is_argon2id_at_the_cost_that_owasp_recommends(passwords: Passwords) -> None:
    assert (await passwords.hash(PASSWORD)).startswith("$argon2id$v=19$m=19456,t=2,p=1$")


async def test_equal_passwords_have_different_hashes(cheap: Passwords) -> None:
    assert await cheap.hash(PASSWORD) != await cheap.hash(PASSWORD)


@pytest.mark.parametrize(
    "other",
    [
        " " + PASSWORD,
        PASSWORD + " ",
        PASSWORD + "\n",
        PASSWORD.title(),
        PASSWORD.replace(" ", "\N{NO-BREAK SPACE}"),
        "",
    ],
)
async def test_password_is_neither_trimmed_nor_folded(cheap: Passwords, other: str) -> None:
    assert not await cheap.verify(await cheap.hash(PASSWORD), other)


async def test_password_is_verified_to_its_last_character(cheap: Passwords) -> None:
    assert not await cheap.verify(await cheap.hash("x" * 127 + "y"), "x" * 127 + "z")
    assert not await cheap.verify(await cheap.hash("x" * 20 + "\0" + "y"), "x" * 20 + "\0" + "z")


async def test_password_is_not_normalized(cheap: Passwords) -> None:
    composed, decomposed = "\u00e9" * 15, "e\u0301" * 15
    assert await cheap.verify(await cheap.hash(composed), composed)
    assert not await cheap.verify(await cheap.hash(composed), decomposed)


async def test_lookalike_characters_are_different_passwords(cheap: Passwords) -> None:
    assert not await cheap.verify(
        await cheap.hash("\N{LATIN SMALL LIGATURE FI}sh and chips for all"), "fish and chips for all"
    )


async def test_no_password_verifies_without_a_hash(cheap: Passwords) -> None:
    assert await cheap.verify(None, PASSWORD) is False
    assert await cheap.verify(None, "") is False


async def test_verification_without_an_account_takes_as_long_as_with_one(passwords: Passwords) -> None:
    password_hash = await passwords.hash(PASSWORD)
    known, unknown = list[float](), list[float]()
    for _ in range(12):  # in turn, so that both meet the same load of the machine
        known.append(await _seconds(passwords.verify(password_hash, "a wrong password")))
        unknown.append(await _seconds(passwords.verify(None, "a wrong password")))
    assert 0.6 < min(unknown) / min(known) < 1.6


async def test_malformed_hash_raises_an_error(cheap: Passwords) -> None:
    with pytest.raises(InvalidHashError):
        await cheap.verify("not a hash", PASSWORD)


async def test_hash_at_another_cost_verifies_and_needs_rehash(passwords: Passwords, cheap: Passwords) -> None:
    old = await cheap.hash(PASSWORD)
    assert await passwords.verify(old, PASSWORD)
    assert passwords.needs_rehash(old)
    assert not passwords.needs_rehash(await passwords.hash(PASSWORD))


@pytest.mark.parametrize(("length", "accepted"), [(0, False), (14, False), (15, True), (128, True), (129, False)])
def test_password_has_15_to_128_characters(cheap: Passwords, length: int, accepted: bool) -> None:
    assert (cheap.problems(_of(length), email=EMAIL) == []) is accepted
    assert (cheap.problems("\N{PILE OF POO}" * length, email=EMAIL) == []) is accepted


def test_minimum_length_can_be_lowered_to_8() -> None:
    assert Passwords(minimum_length=8).problems(_of(8), email=EMAIL) == []
    assert Passwords(minimum_length=8).problems(_of(7), email=EMAIL)
    with pytest.raises(ValueError, match="8 to 128, not 7"):
        Passwords(minimum_length=7)


def test_password_needs_no_kind_of_character(cheap: Passwords) -> None:
    assert cheap.problems("no capital and no digit", email=EMAIL) == []
    assert cheap.problems("839201746582930", email=EMAIL) == []


@pytest.mark.parametrize("password", ["passwordpassword", "PasswordPassword", "1QAZ2wsx3edc4rfv", "manchester united"])
def test_common_password_is_refused_in_any_case(cheap: Passwords, password: str) -> None:
    assert cheap.problems(password, email=EMAIL) == ["The password is too common. Choose another one."]


def test_short_common_password_is_refused_at_a_lower_minimum_length() -> None:
    assert "too common" in Passwords(minimum_length=8).problems("Football", email=EMAIL)[0]


@pytest.mark.parametrize(
    "password",
    [
        EMAIL,
        EMAIL.upper(),
        "lovelace@analytical",
        "analytical-engine",
        "ytical-engine.exam",
        "AdaLovelace18151",
        "ada.lovelace12ab",
        "lovelacelovelace",
        "Lovelace1234567",
        "lovelace-example",
        "123lovelace4567",
        "analyticalengine",
        "Accord!Accord!Accord!",
        "accord lovelace",
    ],
)
def test_password_made_of_the_email_address_or_the_product_name_is_refused(cheap: Passwords, password: str) -> None:
    [problem] = cheap.problems(password, email=EMAIL)
    assert "made of the e-mail address or the name of this service" in problem


def test_email_address_does_not_make_a_common_password_acceptable(cheap: Passwords) -> None:
    assert cheap.problems("accord123456789", email=EMAIL)
    assert cheap.problems("Lovelace-Football", email=EMAIL)


def test_word_that_is_the_start_of_another_word_leaves_no_rest(cheap: Passwords) -> None:
    assert cheap.problems("lovelacelovelace", email="lovelace@love.example.com")


def test_context_words_of_an_installation_are_refused(cheap: Passwords) -> None:
    password = "initech initech 9"
    assert cheap.problems(password, email=EMAIL) == []
    assert Passwords(context_words=frozenset({"Initech"})).problems(password, email=EMAIL)
    assert Passwords(context_words=frozenset()).problems("accord accord 9", email=EMAIL) == []


@pytest.mark.parametrize(
    ("password", "email"),
    [
        ("ada likes long sentences", "ada@example.com"),
        ("lovelace likes long sentences", EMAIL),
        ("for example, six of my cats", EMAIL),
        ("of one accord with the others", EMAIL),
        ("comcomcomcomcom", "a@b.com"),
        ("a sentence (with [regular.* signs", "a.*[(+\\@example.com"),
        (PASSWORD, ""),
    ],
)
def test_password_may_contain_the_email_address_if_the_rest_is_strong(
    cheap: Passwords, password: str, email: str
) -> None:
    assert cheap.problems(password, email=email) == []


def test_password_without_a_word_of_the_email_address_is_accepted(cheap: Passwords) -> None:
    assert cheap.problems("-passwordpassword-", email=EMAIL) == []


def test_words_of_the_email_address_match_in_any_case_of_any_alphabet(cheap: Passwords) -> None:
    assert cheap.problems("STRASSENBAHN123", email="stra\u00dfenbahn@example.com")
    assert cheap.problems("stra\u00dfenbahn1234", email="strassenbahn@example.com")
    assert cheap.problems(
        "\u0416\u0418\u0412\u0410\u0413\u041e-1234567", email="\u0436\u0438\u0432\u0430\u0433\u043e@example.com"
    )


@pytest.mark.parametrize("password", ["hunter2", "hunter2" * 19, "passwordpassword", "lovelacelovelace"])
def test_error_text_does_not_contain_the_password(cheap: Passwords, password: str) -> None:
    [problem] = cheap.problems(password, email=EMAIL)
    assert problem.endswith(".")
    assert password not in problem
    assert "lovelace" not in problem


def test_error_text_states_the_limit(cheap: Passwords) -> None:
    assert cheap.problems("hunter2", email=EMAIL) == ["The password must have at least 15 characters."]
    assert cheap.problems("x" * 129, email=EMAIL) == ["The password must have at most 128 characters."]


async def test_password_of_an_older_policy_verifies_and_can_be_rehashed(cheap: Passwords) -> None:
    short = "hunter2"
    assert await cheap.verify(await cheap.hash(short), short)


async def test_event_loop_is_not_blocked_by_hashing() -> None:
    hashing, turns = asyncio.create_task(Passwords(time_cost=20).hash(PASSWORD)), 0
    while not hashing.done():
        turns += 1
        await asyncio.sleep(0.001)
    assert turns > 10


async def test_at_most_two_passwords_are_hashed_at_a_time(passwords: Passwords, work: Work) -> None:
    tasks = [asyncio.create_task(passwords.hash(PASSWORD)) for _ in range(6)]
    await work.until_begun(2)
    await asyncio.sleep(0.05)
    assert work.begun == 2
    work.end(6)
    await asyncio.gather(*tasks)
    assert work.most_at_a_time == 2


async def test_cancelled_waiter_leaves_the_queue(passwords: Passwords, work: Work) -> None:
    under_way = [asyncio.create_task(passwords.hash(PASSWORD)) for _ in range(2)]
    await work.until_begun(2)
    waiting = [asyncio.create_task(passwords.hash(PASSWORD)) for _ in range(50)]
    await asyncio.sleep(0)
    await _cancel(waiting)
    work.end(3)
    await asyncio.gather(*under_way, passwords.hash(PASSWORD))
    assert work.begun == 3


async def test_cancelled_hash_occupies_its_thread_until_it_is_done(passwords: Passwords, work: Work) -> None:
    doomed = [asyncio.create_task(passwords.hash(PASSWORD)) for _ in range(2)]
    await work.until_begun(2)
    await _cancel(doomed)
    next_one = asyncio.create_task(passwords.hash(PASSWORD))
    await asyncio.sleep(0.05)
    assert work.begun == 2
    work.end(3)
    await next_one
    assert work.most_at_a_time == 2


async def test_close_cancels_waiters(passwords: Passwords, work: Work) -> None:
    under_way = [asyncio.create_task(passwords.hash(PASSWORD)) for _ in range(2)]
    await work.until_begun(2)
    waiting = asyncio.create_task(passwords.hash(PASSWORD))
    await asyncio.sleep(0)
    passwords.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    work.end(2)
    await asyncio.gather(*under_way)


async def _cancel(tasks: list[asyncio.Task[str]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


def _of(length: int) -> str:
    return ("seven green bicycles in the rain " * 4)[:length]


async def _seconds(work: Awaitable[object]) -> float:
    started = time.perf_counter()
    await work
    return time.perf_counter() - started
