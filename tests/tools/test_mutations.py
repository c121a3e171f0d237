"""The mutated lines and the named tests exist. `make mutations` runs them, which takes minutes."""

import ast
from pathlib import Path

import pytest

import mutations
from mutations import MUTATIONS, Mutation

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=[mutation.name for mutation in MUTATIONS])
def test_mutated_text_occurs_once(mutation: Mutation) -> None:
    original = (ROOT / mutation.file).read_text()
    changed = mutations.mutated(original, mutation)
    assert changed != original
    if mutation.file.endswith(".py"):
        ast.parse(changed)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=[mutation.name for mutation in MUTATIONS])
def test_named_tests_exist(mutation: Mutation) -> None:
    for test in mutation.tests:
        path, _, name = test.partition("::")
        assert f"def {name.partition('[')[0]}" in (ROOT / path).read_text()


def test_there_are_at_least_ten_mutations() -> None:
    assert len({mutation.name for mutation in MUTATIONS}) == len(MUTATIONS) >= 10


def test_words_without_a_mutation_are_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert mutations.main(["no such mutation"]) == 1
    assert capsys.readouterr().err == "No mutation's name has no such mutation.\n"


def test_missing_text_is_an_error() -> None:
    missing = Mutation("missing", "Makefile", "no such text", "", ())
    with pytest.raises(SystemExit, match="occurs 0 times in Makefile"):
        mutations.mutated((ROOT / "Makefile").read_text(), missing)
