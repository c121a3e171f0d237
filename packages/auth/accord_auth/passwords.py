"""Passwords: how they are chosen, hashed and verified, off the event loop and at most two at a time."""

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

# NIST SP 800-63B-4, 3.1.1.2: no verifier may go lower, whatever else protects the account.
LEAST_MINIMUM_LENGTH = 8

# Shorter words are too much a part of other words: Ada may choose a sentence about adamant people.
_LEAST_WORD_LENGTH = 4
_SEPARATORS = re.compile(r"[\W_]+")

_SALT_BYTES = 16
_DIGEST_BYTES = 32

_Answer = TypeVar("_Answer")


class Passwords:
    """One per process: the limit of two at a time is its own.

    The context words are what everybody here knows, the names of the product and of the installation: a password may
    be made of them no more than of the e-mail address (ASVS 5.0, 6.2.11).

    The cost is argon2id's second recommended choice of OWASP's Password Storage Cheat Sheet. Changing it changes new
    hashes; old ones still verify, and `needs_rehash` tells them.
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
        self._nobody = f"$argon2id$v=19$m={memory_kib},t={time_cost},p={parallelism}"
        self._nobody += f"${_random(_SALT_BYTES)}${_random(_DIGEST_BYTES)}"
        # The limit is a number of threads, not a semaphore: whoever is cancelled while waiting leaves the queue, and
        # whoever is cancelled while hashing keeps the thread, since nothing can stop it, until the hash is done.
        self._threads = ThreadPoolExecutor(at_a_time, thread_name_prefix="passwords")

    def faults(self, password: str, *, email: str) -> list[str]:
        """Why it may not be chosen, in sentences for whoever chose it; none if it may.

        Only for choosing: a password chosen under an older policy must still verify and be rehashed. Each code point
        counts as one character, as it does in the contract (NIST SP 800-63B-4, 3.1.1.2). Capitals are ignored for the
        comparison with what is easily guessed, and for nothing else.
        """
        if len(password) < self._minimum_length:
            return [f"The password must have at least {self._minimum_length} characters."]
        if len(password) > self._maximum_length:
            return [f"The password must have at most {self._maximum_length} characters."]
        if is_common(password):
            return ["The password is among the commonest; choose another."]
        if _is_made_of([email, *self._context_words], password):
            return ["The password is made of the e-mail address or of the name of this service; choose another."]
        return []

    async def hash(self, password: str) -> str:
        return await self._in_thread(lambda: self._hasher.hash(_bytes(password)))

    async def verify(self, password_hash: str | None, password: str) -> bool:
        """Without a hash (no such account, or one without a password) it is the same work, and False."""
        return await self._in_thread(lambda: self._matches(password_hash or self._nobody, password))

    def needs_rehash(self, password_hash: str) -> bool:
        """Whether it was made at another cost than today's; to be asked when its password is at hand, at sign-in."""
        return self._hasher.check_needs_rehash(password_hash)

    def close(self) -> None:
        """Whoever still waits is cancelled; a hash under way is let finish."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _matches(self, password_hash: str, password: str) -> bool:
        try:
            return self._hasher.verify(password_hash, _bytes(password))
        except VerifyMismatchError:
            return False

    async def _in_thread(self, work: Callable[[], _Answer]) -> _Answer:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


def _is_made_of(known: Iterable[str], password: str) -> bool:
    """Whether it is a part of what is known, or known words hide that the rest could not stand alone."""
    texts, folded = [text.casefold() for text in known], password.casefold()
    if any(folded in text for text in texts):
        return True
    rest = _without({word for text in texts for word in _words(text)}, folded)
    return rest != folded and (len(rest) < LEAST_MINIMUM_LENGTH or is_common(rest.strip(" -_.")))


def _words(text: str) -> set[str]:
    """The local part of an e-mail address and the domain's labels: as they are, run together, and in their own parts.

    So ada.lovelace is found again in "adalovelace1815" and in "lovelace-lovelace".
    """
    local_part, _, domain = text.rpartition("@")
    whole = {local_part, *domain.split(".")}
    return whole | {_SEPARATORS.sub("", word) for word in whole} | set(_SEPARATORS.split(text))


def _without(words: Iterable[str], folded: str) -> str:
    """All at once and the longest first, so that what is left does not depend on the order of a set."""
    long_enough = [word for word in words if len(word) >= _LEAST_WORD_LENGTH]
    return re.sub("|".join(map(re.escape, sorted(long_enough, key=len, reverse=True))), "", folded)


def _bytes(password: str) -> bytes:
    """What is hashed: all of it, exactly as received: nothing trimmed, cut or normalised (ASVS 5.0, 6.2.8)."""
    return password.encode()


def _random(size: int) -> str:
    """For the salt and digest of nobody's hash: no password has it, and making it costs no hashing."""
    return b64encode(secrets.token_bytes(size)).rstrip(b"=").decode()
