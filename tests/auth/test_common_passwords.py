import gzip
import subprocess
import sys
from importlib.resources import files

import pytest

from accord_auth.common_passwords import is_common

LISTED = gzip.decompress((files("accord_auth") / "common_passwords.txt.gz").read_bytes()).decode().split("\n")


@pytest.mark.parametrize("minimum_length", range(8, 16))
def test_list_has_3000_passwords_that_every_minimum_length_allows(minimum_length: int) -> None:
    """ASVS 5.0, 6.2.4: the top 3000 of the permitted length."""
    assert sum(len(password) >= minimum_length for password in LISTED) >= 3000


@pytest.mark.parametrize("length", range(8, 14))
def test_list_has_3000_passwords_for_each_minimum_length(length: int) -> None:
    """Most common passwords have 8 characters; longer minimum lengths need their own."""
    assert sum(len(password) == length for password in LISTED) >= 3000


def test_list_has_no_password_under_the_lowest_minimum_length() -> None:
    assert min(map(len, LISTED)) >= 8


def test_list_is_sorted_unique_and_lower_case() -> None:
    assert sorted(set(LISTED)) == LISTED
    assert [password.casefold() for password in LISTED] == LISTED


def test_list_has_no_email_address() -> None:
    assert not [password for password in LISTED if "." in password.partition("@")[2]]


def test_file_has_no_timestamp() -> None:
    """The same list is the same file (RFC 1952, 2.3.1: MTIME)."""
    assert (files("accord_auth") / "common_passwords.txt.gz").read_bytes()[4:8] == bytes(4)


def test_every_listed_password_is_common() -> None:
    assert all(is_common(password) for password in [*LISTED[:500], *LISTED[-500:], *LISTED[::50]])


@pytest.mark.parametrize("password", ["12345678", "password", "iloveyou1", "passwordpassword", "cristiano ronaldo"])
def test_obvious_passwords_are_common(password: str) -> None:
    assert is_common(password)


@pytest.mark.parametrize("password", ["PASSWORDPASSWORD", "passwordPassword", "ManchesterUnited"])
def test_common_passwords_match_in_any_case(password: str) -> None:
    assert is_common(password)


@pytest.mark.parametrize(
    "password", ["correct horse battery staple", "seven green bicycles in the rain", "\N{PILE OF POO}" * 15, ""]
)
def test_unlisted_password_is_not_common(password: str) -> None:
    assert not is_common(password)


@pytest.mark.parametrize("password", ["manchesterunit", "anchesterunited", "manchesterunited ", " manchesterunited"])
def test_part_or_extension_of_a_listed_password_is_not_common(password: str) -> None:
    assert "manchesterunited" in LISTED
    assert not is_common(password)


def test_password_with_a_line_break_does_not_match_two_lines() -> None:
    assert not is_common("\n".join(LISTED[:2]))
    assert not is_common("\n".join(LISTED[7:9]))
    assert not is_common("\n" + LISTED[0])
    assert not is_common("\n".join([LISTED[0], ""]))
    assert not is_common("\n")


def test_import_does_not_read_the_list() -> None:
    program = (
        "from accord_auth.common_passwords import _lines; import accord_auth.passwords; print(_lines.cache_info())"
    )
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert "misses=0" in printed
