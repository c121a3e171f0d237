"""Encrypted values decrypt with their key at their place, and in no other case."""

import secrets
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accord_auth.encryption import KEY_BYTES, Keyring, Place, Undecipherable

OLD, NEW = secrets.token_bytes(KEY_BYTES), secrets.token_bytes(KEY_BYTES)
ROW, ACCOUNT = UUID(int=1), UUID(int=2)
PLACE = Place("second_factors", "secret", ROW, ACCOUNT)
KEYS = Keyring({"2026-05": OLD})


def refused(ciphertext: bytes, keys: Keyring = KEYS, place: Place = PLACE) -> bool:
    with pytest.raises(Undecipherable):
        keys.decrypt(ciphertext, place)
    return True


@given(value=st.binary(max_size=10_000))
def test_decrypted_value_equals_the_original(value: bytes) -> None:
    assert KEYS.decrypt(KEYS.encrypt(value, PLACE), PLACE) == value


@given(
    places=st.lists(
        st.builds(Place, st.text(max_size=9), st.text(max_size=9), st.uuids(), st.none() | st.uuids()),
        min_size=2,
        max_size=2,
        unique=True,
    )
)
def test_value_decrypts_at_its_own_place_only(places: list[Place]) -> None:
    here, there = places
    ciphertext = KEYS.encrypt(b"value", here)
    assert KEYS.decrypt(ciphertext, here) == b"value"
    assert refused(ciphertext, place=there)


@pytest.mark.parametrize(
    "place",
    [
        PLACE._replace(table="linked_providers"),
        PLACE._replace(column="access_token"),
        PLACE._replace(row_id=UUID(int=3)),
        PLACE._replace(account_id=UUID(int=3)),
        PLACE._replace(account_id=None),
        PLACE._replace(row_id=ACCOUNT, account_id=ROW),
        PLACE._replace(table="second_factorss", column="ecret"),
    ],
    ids=["table", "column", "row", "account", "no account", "swapped", "shifted"],
)
def test_moved_value_does_not_decrypt(place: Place) -> None:
    assert refused(KEYS.encrypt(b"value", PLACE), place=place)


@pytest.mark.parametrize("bit", range(8))
def test_flipped_bit_at_any_position_is_detected(bit: int) -> None:
    ciphertext = KEYS.encrypt(b"a value of some length", PLACE)
    for position in range(len(ciphertext)):
        flipped = bytearray(ciphertext)
        flipped[position] ^= 1 << bit
        assert refused(bytes(flipped)), position


def test_flipped_byte_that_selects_another_key_is_detected() -> None:
    keys = Keyring({"a": OLD, "b": NEW})
    ciphertext = bytearray(keys.encrypt(b"value", PLACE))
    assert ciphertext[2:3] == b"a"
    ciphertext[2:3] = b"b"
    assert refused(bytes(ciphertext), keys)


def test_every_truncation_and_extension_is_detected() -> None:
    ciphertext = KEYS.encrypt(b"a value of some length", PLACE)
    assert all(refused(ciphertext[:length]) for length in range(len(ciphertext)))
    assert all(refused(ciphertext[length:]) for length in range(1, len(ciphertext)))
    assert refused(ciphertext + b"\0")


@given(ciphertext=st.binary(max_size=200))
def test_plain_value_does_not_decrypt(ciphertext: bytes) -> None:
    assert refused(ciphertext)
    assert not KEYS.is_current(ciphertext)


def test_value_of_a_missing_key_does_not_decrypt() -> None:
    assert refused(Keyring({"2026-11": OLD}).encrypt(b"value", PLACE))


def test_another_key_with_the_same_id_does_not_decrypt() -> None:
    assert refused(Keyring({"2026-05": NEW}).encrypt(b"value", PLACE))


def test_first_key_encrypts_and_all_keys_decrypt() -> None:
    both = Keyring({"2026-11": NEW, "2026-05": OLD})
    old = KEYS.encrypt(b"old", PLACE)
    new = both.encrypt(b"new", PLACE)
    assert (both.decrypt(old, PLACE), both.decrypt(new, PLACE)) == (b"old", b"new")
    assert Keyring({"2026-11": NEW}).decrypt(new, PLACE) == b"new"
    assert (both.is_current(old), both.is_current(new)) == (False, True)


def test_empty_value_is_encrypted_and_authenticated() -> None:
    ciphertext = KEYS.encrypt(b"", PLACE)
    assert KEYS.decrypt(ciphertext, PLACE) == b""
    assert refused(ciphertext[:-16])


def test_same_value_at_the_same_place_has_a_different_ciphertext_each_time() -> None:
    head = len(b"\x01\x072026-05")
    nonces = {KEYS.encrypt(b"value", PLACE)[head : head + 12] for _ in range(10_000)}
    assert len(nonces) == 10_000


@pytest.mark.parametrize(
    "keys",
    [{}, {"": OLD}, {"a" * 256: OLD}, {"a": OLD[:-1]}, {"a": OLD + b"\0"}, {"a": OLD, "b": OLD}],
    ids=["none", "no id", "long id", "short", "long", "twice"],
)
def test_invalid_keys_are_refused(keys: dict[str, bytes]) -> None:
    with pytest.raises(ValueError, match="key"):
        Keyring(keys)


def test_longest_key_id_works() -> None:
    keys = Keyring({"ä" * 127: OLD})
    assert keys.decrypt(keys.encrypt(b"value", PLACE), PLACE) == b"value"


def test_error_names_the_place_and_neither_key_nor_value() -> None:
    ciphertext = KEYS.encrypt(b"value", PLACE)
    with pytest.raises(Undecipherable) as raised:
        KEYS.decrypt(ciphertext, PLACE._replace(account_id=None))
    said = f"{raised.value!r} {KEYS!r} {vars(KEYS)}"
    assert f"second_factors.secret of {ROW}" in said
    assert "value" not in said
    assert repr(OLD)[2:-1] not in said
    assert OLD.hex() not in said
