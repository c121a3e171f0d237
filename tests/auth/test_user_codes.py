import pytest

from accord_auth.user_codes import UserCodes, new_user_code


@pytest.mark.parametrize("entered", ["WDJB-MJHT", "wdjb-mjht", "WDJBMJHT", " wdjb mjht ", "W.D.J.B/M.J.H.T"])
def test_user_code_matches_in_any_case_and_with_any_separators(entered: str) -> None:
    codes = UserCodes(b"key")
    assert codes.hash(entered) == codes.hash("WDJB-MJHT")


@pytest.mark.parametrize("entered", ["WDJB-MJH", "WDJB-MJHTT", "WDJB-MJTH", ""])
def test_other_user_codes_have_other_hashes(entered: str) -> None:
    codes = UserCodes(b"key")
    assert codes.hash(entered) != codes.hash("WDJB-MJHT")


def test_letters_outside_ascii_are_no_letters_of_a_code() -> None:
    codes = UserCodes(b"key")
    assert codes.hash("\u00df") != codes.hash("SS")
    assert codes.hash("\u212a") != codes.hash("K")  # the Kelvin sign


def test_hash_depends_on_the_key() -> None:
    assert UserCodes(b"key").hash("WDJB-MJHT") != UserCodes(b"another").hash("WDJB-MJHT")


def test_new_user_codes_have_two_groups_of_four_consonants() -> None:
    assert all(len(code) == 9 and code[4] == "-" and not set(code) & set("AEIOUY") for code in map(_new, range(100)))


def _new(_: int) -> str:
    return new_user_code()
