import gzip
import subprocess
import sys
from importlib.resources import files

import pytest

from accord_auth.common_passwords import is_common

LISTED = gzip.decompress((files("accord_auth") / "common_passwords.txt.gz").read_bytes()).decode().split("\n")


@pytest.mark.parametrize("minimum_length", range(8, 16))
def test_three_thousand_are_listed_of_those_that_may_be_chosen_under_any_minimum(minimum_length: int) -> None:
    """ASVS 5.0, 6.2.4: the top 3000 that the policy of length lets through."""
    assert sum(len(password) >= minimum_length for password in LISTED) >= 3000


@pytest.mark.parametrize("length", range(8, 14))
def test_three_thousand_are_listed_of_each_length_that_an_installation_may_allow(length: int) -> None:
    """Else those of 8 characters, which are most, would leave the next minimum without its commonest."""
    assert sum(len(password) == length for password in LISTED) >= 3000


def test_none_is_listed_that_is_too_short_to_be_chosen_anywhere() -> None:
    assert min(map(len, LISTED)) >= 8


def test_the_list_is_sorted_unique_and_without_capitals() -> None:
    assert sorted(set(LISTED)) == LISTED
    assert [password.casefold() for password in LISTED] == LISTED


def test_no_address_of_a_person_is_listed() -> None:
    assert not [password for password in LISTED if "." in password.partition("@")[2]]


def test_the_file_does_not_tell_when_it_was_made() -> None:
    """So that the same list is the same file (RFC 1952, 2.3.1: MTIME)."""
    assert (files("accord_auth") / "common_passwords.txt.gz").read_bytes()[4:8] == bytes(4)


def test_every_listed_password_is_common() -> None:
    assert all(is_common(password) for password in [*LISTED[:500], *LISTED[-500:], *LISTED[::50]])


@pytest.mark.parametrize("password", ["12345678", "password", "iloveyou1", "passwordpassword", "cristiano ronaldo"])
def test_what_everybody_would_try_first_is_common(password: str) -> None:
    assert is_common(password)


@pytest.mark.parametrize("password", ["PASSWORDPASSWORD", "passwordPassword", "ManchesterUnited"])
def test_capitals_make_no_common_password_uncommon(password: str) -> None:
    assert is_common(password)


@pytest.mark.parametrize(
    "password", ["correct horse battery staple", "seven green bicycles in the rain", "\N{PILE OF POO}" * 15, ""]
)
def test_what_is_not_listed_is_not_common(password: str) -> None:
    assert not is_common(password)


@pytest.mark.parametrize("password", ["manchesterunit", "anchesterunited", "manchesterunited ", " manchesterunited"])
def test_neither_a_part_of_a_listed_password_nor_a_longer_one_is_common(password: str) -> None:
    assert "manchesterunited" in LISTED
    assert not is_common(password)


def test_a_password_with_a_line_break_is_not_found_across_two_lines() -> None:
    assert not is_common("\n".join(LISTED[:2]))
    assert not is_common("\n".join(LISTED[7:9]))
    assert not is_common("\n" + LISTED[0])
    assert not is_common("\n".join([LISTED[0], ""]))
    assert not is_common("\n")


def test_importing_reads_no_list() -> None:
    program = (
        "from accord_auth.common_passwords import _lines; import accord_auth.passwords; print(_lines.cache_info())"
    )
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert "misses=0" in printed
