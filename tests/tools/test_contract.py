"""The checks of the contract: comments, compatibility and number ranges."""

from pathlib import Path
from shutil import copytree

import pytest

import contract
import stubs

RPC = """\
  // Returns one note.
  rpc GetNote(GetNoteRequest) returns (GetNoteResponse) {
    option idempotency_level = NO_SIDE_EFFECTS;
    option (google.api.http) = {get: "/v1/notes/{note_id}"};
  }
"""
NOTES = f"""\
syntax = "proto3";
package accord.notes.v1;

import "google/api/annotations.proto";

// Notes.
service NoteService {{
{RPC}}}

// The id of a note.
message GetNoteRequest {{
  // Its id.
  string note_id = 1;
}}

// The note.
message GetNoteResponse {{
  // Its text.
  string text = 1;
}}
"""


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only proto file of a released contract. There is no main branch to compare with."""
    notes = tmp_path / "proto/accord/notes/v1/notes.proto"
    notes.parent.mkdir(parents=True)
    notes.write_text(NOTES)
    monkeypatch.setattr(contract, "SOURCES", tmp_path / "proto")
    monkeypatch.setattr(contract, "RELEASED", tmp_path / "released.binpb")
    monkeypatch.setattr(contract, "base_of_branch", lambda: None)
    contract.image_of(tmp_path / "proto", contract.RELEASED)
    return notes


def test_added_field_is_compatible(notes: Path, tmp_path: Path) -> None:
    notes.write_text(NOTES.replace("string text = 1;", "string text = 1;\n  // Its title.\n  string title = 2;"))
    contract.breaking(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ("string text = 1;", "int64 text = 1;", "changed type"),
        ("string text = 1;", "string text = 2;", "deleted"),
        ("string text = 1;", "string body = 1;", "changed name"),
        (RPC, "", 'RPC "GetNote"'),
        ("service NoteService", "service NotesService", 'service "NoteService"'),
        ("returns (GetNoteResponse)", "returns (stream GetNoteResponse)", "stream"),
    ],
)
def test_incompatible_change_is_an_error(notes: Path, tmp_path: Path, old: str, new: str, error: str) -> None:
    notes.write_text(NOTES.replace(old, new))
    with pytest.raises(stubs.ContractError, match=error):
        contract.breaking(tmp_path)


@pytest.mark.parametrize("comment", ["// Returns one note.", "// Its id.", "// The note."])
def test_contract_without_a_comment_is_an_error(notes: Path, tmp_path: Path, comment: str) -> None:
    notes.write_text(NOTES.replace(comment, ""))
    with pytest.raises(stubs.ContractError, match=r"proto/accord/notes/v1/notes.proto:.*comment"):
        contract.lint(tmp_path)


@pytest.mark.parametrize(
    ("route", "error"),
    [
        ("", "accord.notes.v1.NoteService.GetNote: declares neither a route"),
        ('get: "/v1/notes/{id}"', "accord.notes.v1.NoteService.GetNote: .* has a variable id"),
    ],
)
def test_method_without_a_usable_route_is_an_error(notes: Path, tmp_path: Path, route: str, error: str) -> None:
    contract.lint(tmp_path)
    notes.write_text(NOTES.replace('get: "/v1/notes/{note_id}"', route))
    with pytest.raises(stubs.ContractError, match=error):
        contract.lint(tmp_path)


def test_syntax_error_is_reported_with_its_line(notes: Path, tmp_path: Path) -> None:
    notes.write_text(NOTES + "messag Typo {}\n")
    with pytest.raises(stubs.ContractError, match=r"notes.proto:26"):
        contract.lint(tmp_path)


@pytest.mark.parametrize(
    ("file", "value", "error"),
    [
        ("app/v1/reasons.proto", "REASON_X = 999", "uses reserved number 999"),
        ("app/v1/permissions.proto", "PERMISSION_X = 999", "uses reserved number 999"),
        ("errors/v1/errors.proto", "REASON_X = 1000", "uses reserved number 1000"),
        ("policy/v1/policy.proto", "PERMISSION_X = 1000", "uses reserved number 1000"),
    ],
)
def test_number_of_the_other_range_is_an_error(tmp_path: Path, file: str, value: str, error: str) -> None:
    """Accord's reasons and permissions have numbers below 1000; those of the application have numbers from 1000."""
    sources = tmp_path / "proto"
    copytree(stubs.SOURCES, sources)
    zero = f"{value.partition('_')[0]}_UNSPECIFIED = 0;\n"
    text = (sources / "accord" / file).read_text()
    assert text.count(zero) == 1
    (sources / "accord" / file).write_text(text.replace(zero, f"{zero}  {value};\n"))
    with pytest.raises(stubs.ContractError, match=error):
        stubs.compile_image(sources, tmp_path / "image")


def test_application_without_values_compiles_without_a_warning(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    stubs.compile_image(stubs.SOURCES, tmp_path / "image")
    assert capfd.readouterr().err == ""
