"""`accord new feature`: the field language, the plan, and a feature in a copy of the repository."""

import argparse
import ast
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accord_generator.commands import add_new
from accord_generator.errors import Refused
from accord_generator.fields import Kind, parse_field
from accord_generator.insertions import with_reasons
from accord_generator.names import name_faults, singular_of
from accord_generator.new_feature import feature_of
from accord_generator.plan import Plan, plan_of, shown
from accord_generator.repository import Repository
from accord_rpc.openapi.values import matching
from tests.copies import ROOT, Copy
from tests.docs.test_adding_a_feature import PAGE, blocks

SWITCHES: dict[str, Any] = {
    "singular": None,
    "owner": None,
    "parent": None,
    "methods": None,
    "filters": None,
    "order": None,
    "search": None,
    "basic": None,
    **dict.fromkeys(("batch", "watch", "no_soft_delete", "no_etag"), False),
}


def plan(name: str, *fields: str, **switches: Any) -> Plan:
    options = argparse.Namespace(**SWITCHES | switches, name=name, fields=list(fields))
    repository = Repository(ROOT)
    return plan_of(feature_of(options, repository), repository)


def faults(name: str, *fields: str, **switches: Any) -> str:
    with pytest.raises(Refused) as refused:
        plan(name, *fields, **switches)
    return str(refused.value)


# --- names and fields -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("plural", "singular"),
    [
        ("invoices", "invoice"),
        ("fun_facts", "fun_fact"),
        ("categories", "category"),
        ("boxes", "box"),
        ("people", "person"),
        ("movies", "movie"),
        ("news", None),
    ],
)
def test_singular_is_derived_where_the_rules_know_it(plural: str, singular: str | None) -> None:
    assert singular_of(plural) == singular


@pytest.mark.parametrize("name", ["Invoices", "class", "select", "in voices", "x" * 31 + "s", "1s"])
def test_name_that_a_layer_cannot_have_is_refused(name: str) -> None:
    assert list(name_faults(name, "thing"))


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("title", "a colon and a type"),
        ("title: strin(1..2)", "there is no type 'strin'"),
        ("title: string", "greatest length"),
        ("title: string(5..2)", "lower limit 5"),
        ("id: uuid", "the kernel has a column"),
        ("limit: bool", "reserved word of SQL"),
        ("kind: enum(a, a)", "there twice"),
        ("kind: enum(a, b) = c", "not one of the values"),
        ("n: int32(0..5) = 9", "outside the limits"),
        ("c: ref(tasks, set null)", "can be unset"),
        ("code: string(3) pattern '['", "no regular expression"),
        ("labels: json[]", "child table"),
        ("a: bool now", "'now'"),
        ("lines: json(InvoiceLine)", "'('"),
    ],
)
def test_field_with_a_fault_is_refused_with_its_reason(source: str, fault: str) -> None:
    with pytest.raises(Refused, match=re.escape(fault)):
        parse_field(source)


def test_parts_of_a_field_are_read() -> None:
    parsed = parse_field("labels: string(1..30)[0..20]")
    assert (parsed.kind, parsed.limits.most, parsed.items and parsed.items.most) == (Kind.STRING, 30, 20)
    assert parse_field("customer: ref(customers)?").name == "customer_id"


@pytest.mark.parametrize("pattern", ["^[A-Z]{3}$", "^[^@ ]+@[^@ ]+$", r"^\d{2,4}-\w+(a|b)?$", r"^(x|yy)[0-9]$"])
def test_examples_match_their_pattern_and_differ(pattern: str) -> None:
    examples = [matching(pattern, number) for number in range(4)]
    assert all(re.search(pattern, example) for example in examples)
    assert len(set(examples)) > 1


# --- the plan ---------------------------------------------------------------------------------------------------------
def test_all_faults_are_reported_at_once_and_nothing_is_written() -> None:
    found = faults("tasks", "title: string(1..9)", filters="none", order="title, gone", search="title", watch=True)
    for fault in ("tasks.proto exists already", "no field 'none'", "no field 'gone'", "no events to watch"):
        assert fault in found


@pytest.mark.parametrize(
    ("fields", "switches", "fault"),
    [
        (["a: bool", "a: bool"], {}, "there are two"),
        (["due_at: string(1..9)?"], {"order": "due_at"}, "only times and dates that are unset"),
        (["labels: string(1..9)[]"], {"order": "labels"}, "an array"),
        (["customer: ref(nothing)"], {}, "there is no feature 'nothing'"),
        (["task: ref(tasks)"], {"owner": "account", "parent": "tasks"}, "leave out --owner"),
        (["a: bool"], {"no_soft_delete": True, "methods": "get,undelete"}, "cannot be undeleted"),
        (["a: bool"], {"methods": "list"}, "get is needed"),
        (["a: bool"], {"owner": "none"}, "--owner none is not there yet"),
        (["a: bool"], {"parent": "accounts"}, "no owner of their own"),
        (["session: ref(sessions)"], {}, "cannot refer to them"),
        (["a: bool immutable"], {}, "no field can be changed"),
        (["a: bool", "b: bool"], {"basic": "a", "order": "b"}, "--order"),
    ],
)
def test_switch_that_does_not_fit_is_refused(fields: list[str], switches: dict[str, Any], fault: str) -> None:
    assert fault in faults("gadgets", *fields, **switches)


def test_plan_shows_the_table_the_methods_and_the_insertions() -> None:
    made = plan("gadgets", "title: string(1..200) unique", "task: ref(tasks)?", owner="either", filters="title")
    text = "\n".join(shown(made))
    assert "title: Mapped[str] = mapped_column(String(200))" in text
    assert re.search(r"ListGadgets +GET +/v1/gadgets +gadgets.read", text)
    assert "GADGET_NOT_FOUND, GADGET_TITLE_TAKEN" in text
    assert "+    GadgetService," in text


def run(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser()
    add_new(parser.add_subparsers())
    options = parser.parse_args(arguments)
    status: int = options.run(options)
    return status


def test_numbers_of_removed_reasons_are_not_used_again() -> None:
    text = "enum Reason {\n  reserved 1 to 999;\n  reserved 1000, 1002;\n\n  REASON_UNSPECIFIED = 0;\n}\n"
    assert "REASON_A = 1003" in with_reasons(text, [("REASON_A", "NOT_FOUND", "A.", "A.")])


def test_command_prints_the_plan_and_refuses_with_a_status(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    assert run(["new", "feature", "gadgets", "title: string(1..200)", "--plan"]) == 0
    assert "packages/db/accord_db/schema/gadgets.py" in capsys.readouterr().out
    assert run(["new", "feature", "gadgets", "title: strin"]) == 2
    assert "nothing was written" in capsys.readouterr().err
    assert not (ROOT / "proto/accord/gadgets").exists()


_TYPES = st.sampled_from(
    [
        "string(1..32)",
        "string(..500)?",
        "string(0..99) multiline",
        "string(3) pattern '^[A-Z]+$'",
        "string(1..32) unique",
        "int32(-5..5)",
        "int64(0..)?",
        "int64 = 7",
        "float(0..1)",
        "bool",
        "bool = true",
        "enum(a, b, c)",
        "enum(a, b) = a",
        "enum(a, b)?",
        "timestamp",
        "timestamp?",
        "date",
        "date?",
        "json",
        "json?",
        "uuid",
        "ref(tasks)",
        "ref(tasks, set null)?",
        "string(1..9)[0..5]",
        "int64[]",
        "uuid[..3]",
        "string(..9)? output",
        "string(1..9) immutable",
        "string(..9)? sensitive",
    ]
)
_SOME = st.fixed_dictionaries(
    {
        "owner": st.sampled_from(["organization", "either"]),
        "no_etag": st.booleans(),
        "no_soft_delete": st.booleans(),
    }
)


@given(st.lists(_TYPES, min_size=1, max_size=8), _SOME)
@settings(max_examples=30, deadline=None)
def test_every_list_of_fields_gives_files_that_parse(types: list[str], switches: dict[str, Any]) -> None:
    fields = [f"field_{'abcdefgh'[number]}: {type_}" for number, type_ in enumerate(["bool", *types][:8])]
    made = plan("gadgets", *fields, **switches)
    for path, text in made.new.items():
        if path.endswith(".py"):
            ast.parse(text)
        else:
            assert text.count("{") == text.count("}")
            assert "{{" not in text
            assert "None" not in text


# --- a feature in a copy ----------------------------------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.skipif((ROOT / "proto/accord/invoices").exists(), reason="this repository has the feature")
def test_features_are_there_with_green_checks_after_one_command_each(tmp_path: Path) -> None:
    copy = Copy(tmp_path / "accord")
    commands = next(block for block in blocks(PAGE.read_text()) if block.language == "sh").text.replace("\\\n", "")
    for command, name in zip(commands.splitlines(), ("customers", "invoices"), strict=True):
        output = copy.run(f"{command} --yes")
        assert re.search(rf"tests of {name}\.+ ok", output)
        assert f"{name} is there after" in output
    generic = "tests/api/test_matrix.py tests/api/test_foreign_ids.py tests/api/test_lists.py tests/api/test_masks.py"
    assert "passed" in copy.run(f".venv/bin/python -m pytest -q -n0 --feature=invoices {generic}")
