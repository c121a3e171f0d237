"""Passwords: rules for new ones, hashing and verification."""

import asyncio
import re
import secrets
from base64 import b64encode
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from argon2 import PasswordHasher, Type
from argon2.exceptions import VerifyMismatchError

from accord_auth.common_passwords import is_common

# The minimum that NIST SP 800-63B-4, 3.1.1.2 permits.
LEAST_MINIMUM_LENGTH = 8

# Shorter words occur in too many others: `ada` in `adamant`.
_LEAST_WORD_LENGTH = 4
_SEPARATORS = re.compile(r"[\W_]+")

_SALT_BYTES = 16
_DIGEST_BYTES = 32

_Result = TypeVar("_Result")


class Passwords:
    """One per process. Hashes with argon2id in threads, `at_a_time` at most, and never on the event loop.

    New passwords must not be made of the context words, such as the product's name, or of the e-mail address (ASVS 5.0,
    6.2.11). The cost is the second choice of OWASP's Password Storage Cheat Sheet. After a change of the cost, old hashes
    still verify, and `needs_rehash` is true for them.
    """

    def __init__(
        self,
        *,
        minimum_length: int = 15,
        maximum_length: int = 128,
        context_words: frozenset[str] = frozenset({"accord"}),
        time_cost: int = 2,
        memory_kib: int = 19 * 1024,
        parallelism: int = 1,
        at_a_time: int = 2,
    ) -> None:
        if not LEAST_MINIMUM_LENGTH <= minimum_length <= maximum_length:
            raise ValueError(f"minimum_length must be {LEAST_MINIMUM_LENGTH} to {maximum_length}, not {minimum_length}")
        self._minimum_length = minimum_length
        self._maximum_length = maximum_length
        self._context_words = context_words
        self._hasher = PasswordHasher(
            time_cost=time_cost,
            memory_cost=memory_kib,
            parallelism=parallelism,
            hash_len=_DIGEST_BYTES,
            salt_len=_SALT_BYTES,
            type=Type.ID,
        )
        self._dummy_hash = f"$argon2id$v=19$m={memory_kib},t={time_cost},p={parallelism}"
        self._dummy_hash += f"${_random(_SALT_BYTES)}${_random(_DIGEST_BYTES)}"
        # A number of threads and not a semaphore: a caller that is cancelled while it waits leaves the queue, and one that is
        # cancelled while it hashes occupies its thread until the hash is done.
        self._threads = ThreadPoolExecutor(at_a_time, thread_name_prefix="passwords")

    def problems(self, password: str, *, email: str) -> list[str]:
        """Why the password may not be chosen, as sentences for the user. Empty if it may.

        For new passwords only: existing ones still verify. Each code point is one character, as in the contract (NIST SP
        800-63B-4, 3.1.1.2). Case is ignored only in the comparison with guessable words.
        """
        if len(password) < self._minimum_length:
            return [f"The password must have at least {self._minimum_length} characters."]
        if len(password) > self._maximum_length:
            return [f"The password must have at most {self._maximum_length} characters."]
        if is_common(password):
            return ["The password is too common. Choose another one."]
        if _is_made_of([email, *self._context_words], password):
            return ["The password is made of the e-mail address or the name of this service. Choose another one."]
        return []

    async def hash(self, password: str) -> str:
        return await self._in_thread(lambda: self._hasher.hash(_bytes(password)))

    async def verify(self, password_hash: str | None, password: str) -> bool:
        """False without a hash (no such account, or none with a password), after the same work."""
        return await self._in_thread(lambda: self._matches(password_hash or self._dummy_hash, password))

    def needs_rehash(self, password_hash: str) -> bool:
        """Whether the hash has another cost than new ones. Checked at sign-in, when the password is known."""
        return self._hasher.check_needs_rehash(password_hash)

    def close(self) -> None:
        """Cancels waiting calls; running ones complete."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _matches(self, password_hash: str, password: str) -> bool:
        try:
            return self._hasher.verify(password_hash, _bytes(password))
        except VerifyMismatchError:
            return False

    async def _in_thread(self, work: Callable[[], _Result]) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


def _is_made_of(known: Iterable[str], password: str) -> bool:
    """Whether the password is part of a known text, or too weak without its known words."""
    texts, folded = [text.casefold() for text in known], password.casefold()
    if any(folded in text for text in texts):
        return True
    rest = _without({word for text in texts for word in _words(text)}, folded)
    return rest != folded and (len(rest) < LEAST_MINIMUM_LENGTH or is_common(rest.strip(" -_.")))


def _words(text: str) -> set[str]:
    """The local part of an e-mail address and the labels of its domain: whole, without separators, and in parts.

    So ada.lovelace matches in "adalovelace1815" and in "lovelace-lovelace".
    """
    local_part, _, domain = text.rpartition("@")
    whole = {local_part, *domain.split(".")}
    return whole | {_SEPARATORS.sub("", word) for word in whole} | set(_SEPARATORS.split(text))


def _without(words: Iterable[str], folded: str) -> str:
    """Removes all words at once, the longest first, so that the rest does not depend on the order of a set."""
    long_enough = [word for word in words if len(word) >= _LEAST_WORD_LENGTH]
    return re.sub("|".join(map(re.escape, sorted(long_enough, key=len, reverse=True))), "", folded)


def _bytes(password: str) -> bytes:
    """The password as received: not trimmed, truncated or normalized (ASVS 5.0, 6.2.8)."""
    return password.encode()


def _random(size: int) -> str:
    """Salt or digest of the dummy hash, which matches no password and costs no hashing to create."""
    return b64encode(secrets.token_bytes(size)).rstrip(b"=").decode()
