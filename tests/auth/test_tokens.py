import base64
import hashlib
import re
from collections.abc import Callable

import pytest

from accord_auth import tokens
from accord_auth.tokens import SESSION_PREFIX, new_session_token, new_token, token_hash, well_formed


def test_new_session_token_is_well_formed() -> None:
    token = new_session_token()
    assert token.startswith("acs_")
    assert len(token) == 52
    assert well_formed(token)


def test_token_has_256_random_bits() -> None:
    secrets = {base64.urlsafe_b64decode(new_session_token()[4:])[:32] for _ in range(1_000)}
    assert len(secrets) == 1_000
    assert {len(secret) for secret in secrets} == {32}
    # Each bit is set in about half of the tokens: none is fixed.
    set_bits = [sum(secret[bit // 8] >> bit % 8 & 1 for secret in secrets) for bit in range(256)]
    assert min(set_bits) > 350
    assert max(set_bits) < 650


def test_token_with_one_mistyped_character_is_malformed() -> None:
    token = new_session_token()
    for at in range(len(token)):
        for other in "aZ0_-":
            if other != token[at]:
                assert not well_formed(token[:at] + other + token[at + 1 :])


@pytest.mark.parametrize("spoil", [
    lambda token: "",
    lambda token: SESSION_PREFIX,
    lambda token: token[4:],
    lambda token: token[:-1],
    lambda token: token + "A",
    lambda token: token + "=",
    lambda token: token + "\n",
    lambda token: " " + token,
    lambda token: token.upper(),
    lambda token: token[:20] + "\N{FULLWIDTH DIGIT ONE}" + token[21:],
    lambda token: token[:20] + "\0" + token[21:],
    lambda token: token[:20] + "\udcff" + token[21:],
    lambda token: token[:20] + "+/" + token[22:],
    lambda token: token * 100_000,
])  # fmt: skip
def test_other_strings_are_malformed(spoil: Callable[[str], str]) -> None:
    assert not well_formed(spoil(new_session_token()))


def test_secret_scanner_finds_tokens_of_every_kind() -> None:
    documented = re.findall(r"`(ac\[a-z\]_\S+)`", str(tokens.__doc__))
    prefixes = [prefix for name, prefix in vars(tokens).items() if name.endswith("_PREFIX")]
    assert len(prefixes) > 5
    for prefix in prefixes:
        token = new_token(prefix)
        assert re.findall(documented[0], f'KEY="{token}"') == [token]


def test_token_of_another_kind_with_the_prefix_exchanged_is_malformed() -> None:
    key = new_token("ack_")
    assert well_formed(key, "ack_")
    assert not well_formed(key)
    assert not well_formed(SESSION_PREFIX + key.removeprefix("ack_"))


def test_hash_of_a_token_is_its_sha_256() -> None:
    token = new_session_token()
    assert token_hash(token) == hashlib.sha256(token.encode()).digest()
    assert token_hash(token) != token_hash(new_session_token())
