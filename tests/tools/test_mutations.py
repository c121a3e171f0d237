"""What `make mutations` breaks is there to be broken, and the tests that are to notice are there. That they do takes
minutes, and is not asked here."""

import ast
from pathlib import Path

import pytest

import mutations
from mutations import MUTATIONS, Mutation

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=[mutation.name for mutation in MUTATIONS])
def test_what_is_to_be_broken_occurs_once(mutation: Mutation) -> None:
    whole = (ROOT / mutation.file).read_text()
    changed = mutations.broken(whole, mutation)
    assert changed != whole
    if mutation.file.endswith(".py"):
        ast.parse(changed)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=[mutation.name for mutation in MUTATIONS])
def test_what_is_to_notice_is_there(mutation: Mutation) -> None:
    for test in mutation.tests:
        path, _, name = test.partition("::")
        assert f"def {name.partition('[')[0]}" in (ROOT / path).read_text()


def test_ten_guards_at_least_are_broken() -> None:
    assert len({mutation.name for mutation in MUTATIONS}) == len(MUTATIONS) >= 10


def test_words_that_no_mutation_has_are_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert mutations.main(["no such mutation"]) == 1
    assert capsys.readouterr().err == "No mutation's name has no such mutation.\n"


def test_what_is_not_there_cannot_be_broken() -> None:
    gone = Mutation("gone", "Makefile", "no such text", "", ())
    with pytest.raises(SystemExit, match="occurs 0 times in Makefile"):
        mutations.broken((ROOT / "Makefile").read_text(), gone)
