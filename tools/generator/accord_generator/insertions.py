"""Insertions into files that people have written. Each finds its place by the structure of the file, and changes nothing else."""

import ast
import re
from collections.abc import Sequence
from typing import Final

from accord_generator.errors import NotRecognised
from accord_generator.names import Names
from accord_generator.repository import PERMISSIONS, REASONS, REGISTRATION

_FIRST_NUMBER: Final = 1000  # lower ones belong to Accord


def with_reasons(text: str, reasons: Sequence[tuple[str, str, str, str]]) -> str:
    """Name, code, comment and message of each, with the next free numbers."""
    number = _next_number(text)
    values = [
        f'  // {comment}\n  {name} = {number + index} [(accord.errors.v1.answer) = {{code: {code} message: "{message}"}}];\n'
        for index, (name, code, comment, message) in enumerate(reasons)
    ]
    return _at_the_end_of_enum(text, "Reason", "\n".join(values), REASONS)


def with_permissions(text: str, permissions: Sequence[tuple[str, str, str]]) -> str:
    """Name, stored name and comment of each. The roles admin and member hold them."""
    number = _next_number(text)
    values = [
        f'  // {comment}\n  {name} = {number + index} [(accord.policy.v1.permission_name) = "{stored}", '
        "(accord.policy.v1.held_by) = ROLE_ADMIN, (accord.policy.v1.held_by) = ROLE_MEMBER];\n"
        for index, (name, stored, comment) in enumerate(permissions)
    ]
    return _at_the_end_of_enum(text, "Permission", "\n".join(values), PERMISSIONS) if permissions else text


def with_registration(text: str, names: Names) -> str:
    """The import of the servicer, and its entry in SERVICES, both in the order of the alphabet."""
    module = ast.parse(text)
    lines = text.splitlines(keepends=True)
    entry, imported = _place_of_entry(module, names.service), f"accord_api.handlers.{names.plural}"
    imports = [node for node in module.body if isinstance(node, ast.ImportFrom)]
    if not imports:
        raise NotRecognised(f"{REGISTRATION} has no imports")
    later = [node.lineno - 1 for node in imports if (node.module or "") > imported]
    last = imports[-1].end_lineno
    assert last is not None
    lines.insert(entry, f"    {names.service},\n")
    lines.insert(later[0] if later else last, f"from {imported} import {names.service}\n")
    return "".join(lines)


def _place_of_entry(module: ast.Module, service: str) -> int:
    """The index of the line before which the entry belongs."""
    for node in module.body:
        named = isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == "SERVICES"
        if named and isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Tuple) and node.value.elts:
            later = [each.lineno - 1 for each in node.value.elts if ast.unparse(each) > service]
            return later[0] if later else node.value.elts[-1].lineno
    raise NotRecognised(f"{REGISTRATION} has no tuple SERVICES of servicers")


def _next_number(text: str) -> int:
    """After all that are used or reserved. A removed value leaves its number reserved."""
    used = re.findall(r"^  \w+ = (\d+)", text, re.MULTILINE)
    for reserved in re.findall(r"^  reserved ([\d, to]+);", text, re.MULTILINE):
        used += re.findall(r"\d+", reserved)
    return max(_FIRST_NUMBER - 1, *map(int, used)) + 1


def _at_the_end_of_enum(text: str, name: str, values: str, path: str) -> str:
    found = re.search(rf"^enum {name} \{{\n(?:.*\n)*?(?=^\}}$)", text, re.MULTILINE)
    if found is None:
        raise NotRecognised(f"{path} has no enum {name} whose closing brace stands on a line of its own")
    return f"{text[: found.end()]}\n{values}{text[found.end() :]}"
