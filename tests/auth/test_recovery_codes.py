import re

import pytest

from accord_auth.recovery_codes import new_recovery_codes, recovery_code_hash


def test_there_are_ten_codes_of_120_bits_in_groups_of_four() -> None:
    codes = new_recovery_codes()
    assert len(set(codes)) == 10
    assert all(re.fullmatch(r"([A-Z2-7]{4}-){5}[A-Z2-7]{4}", code) for code in codes)


def test_recovery_codes_are_unique() -> None:
    codes = [code for _ in range(200) for code in new_recovery_codes()]
    assert len(set(codes)) == len({recovery_code_hash(code) for code in codes}) == 2000


def test_recovery_code_matches_in_any_case_with_or_without_dashes() -> None:
    code = new_recovery_codes()[0]
    same = [code, code.lower(), code.replace("-", ""), code.swapcase(), f"-{code.replace('-', '--')}-"]
    assert len({recovery_code_hash(each) for each in same}) == 1


@pytest.mark.parametrize(
    "code",
    ["", "-", "A" * 23, "A" * 25, "A" * 23 + "0", "A" * 23 + "1", "A" * 23 + " ", "A" * 24 + "\n", "Ä" * 24, "ß" * 12],
)
def test_malformed_recovery_code_has_no_hash(code: str) -> None:
    assert recovery_code_hash(code) is None


def test_every_letter_of_a_recovery_code_counts() -> None:
    code = new_recovery_codes()[0].replace("-", "")
    others = {code[:place] + ("B" if letter == "A" else "A") + code[place + 1 :] for place, letter in enumerate(code)}
    assert recovery_code_hash(code) not in {recovery_code_hash(other) for other in others}
