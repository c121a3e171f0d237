"""What will be written: whole files, and insertions into existing ones. Printed before anything is written."""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from accord_generator import columns
from accord_generator.declared import permissions_of, reasons_of
from accord_generator.feature import Feature
from accord_generator.insertions import with_permissions, with_reasons, with_registration
from accord_generator.rendering import render
from accord_generator.repository import PERMISSIONS, PROTO, REASONS, REGISTRATION, SCHEMA, Repository


@dataclass(frozen=True)
class Plan:
    """Texts by path. `changed` has the text before and after."""

    feature: Feature
    new: dict[str, str]
    changed: dict[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def paths(self) -> list[str]:
        return [*self.new, *self.changed]

    def write(self, root: Path) -> None:
        for path, text in self.new.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text)
        for path, (_, after) in self.changed.items():
            (root / path).write_text(after)


def plan_of(feature: Feature, repository: Repository) -> Plan:
    """Raises NotRecognised."""
    edits = {
        REASONS: lambda text: with_reasons(text, reasons_of(feature)),
        PERMISSIONS: lambda text: with_permissions(text, permissions_of(feature)),
        REGISTRATION: lambda text: with_registration(text, feature.names),
    }
    texts = {path: repository.read(path) for path in edits}
    changed = {path: (text, edits[path](text)) for path, text in texts.items()}
    return Plan(
        feature, render(feature, repository), {path: pair for path, pair in changed.items() if pair[0] != pair[1]}
    )


def shown(plan: Plan) -> Iterator[str]:
    """The plan for people."""
    feature = plan.feature
    n = feature.names
    owner = f"each belongs to {feature.parent.names.a}" if feature.parent else f"owner: {feature.rows_owner}"
    yield f"{n.plural} ({n.service}; {owner})\n"
    yield f"Table {n.plural} ({SCHEMA.format(n.plural)})"
    for each in feature.fields:
        yield f"  {columns.column(each)}"
    yield f"\nMethods ({PROTO.format(n.plural)})"
    yield from _methods(plan)
    for title, found in (("Permissions", permissions_of(feature)), ("Reasons", reasons_of(feature))):
        if found:
            yield f"\n{title}: {', '.join(each[0].split('_', 1)[1] for each in found)}"
    yield "\nNew files"
    for path, text in plan.new.items():
        yield f"  {path} ({len(text.splitlines())} lines)"
    yield f"  packages/db/accord_db/migrations/versions/…_add_{n.plural}.py"
    yield "\nInsertions"
    for path, (before, after) in plan.changed.items():
        yield f"  {path}"
        diff = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=0)
        yield from (f"    {line}" for line in diff if line.startswith("+") and not line.startswith("+++"))


def _methods(plan: Plan) -> Iterator[str]:
    """Name, route, and who may call it."""
    feature = plan.feature
    n = feature.names
    text = plan.new[PROTO.format(n.plural)]
    for block in text.split("  rpc ")[1:]:
        name = block.split("(", 1)[0]
        verb, _, rest = next(line.strip() for line in block.splitlines() if '"/v1' in line).partition('"')
        verb = verb.replace("option (google.api.http) = {", "").strip(" :{").upper()
        write = "_WRITE" in block
        who = f"{n.plural}.{'write' if write else 'read'}" if feature.has_permissions else "signed in"
        yield f"  {name:<28} {verb:<6} {rest.split(chr(34), 1)[0]:<44} {who}"
