"""What the repository has: its features, reasons and permissions, as their files state them."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from accord_generator.errors import NotRecognised
from accord_generator.feature import Existing, Owner
from accord_generator.names import Names

PROTO: Final = "proto/accord/{0}/v1/{0}.proto"
SCHEMA: Final = "packages/db/accord_db/schema/{0}.py"
QUERIES: Final = "packages/db/accord_db/queries/{0}.py"
HANDLERS: Final = "packages/api/accord_api/handlers/{0}.py"
TESTS: Final = "tests/api/test_{0}.py"
REGISTRATION: Final = "packages/api/accord_api/registration.py"
REASONS: Final = "proto/accord/app/v1/reasons.proto"
PERMISSIONS: Final = "proto/accord/app/v1/permissions.proto"
ACCORDS_REASONS: Final = "proto/accord/errors/v1/errors.proto"
FILES: Final = (PROTO, SCHEMA, QUERIES, HANDLERS, TESTS)


def find_root(start: Path) -> Path:
    """The checkout that contains the folder. Raises NotRecognised."""
    for folder in (start, *start.parents):
        if (folder / REGISTRATION).is_file() and (folder / "Makefile").is_file():
            return folder
    raise NotRecognised(f"{start} is not in a checkout of Accord: there is no {REGISTRATION}")


class Repository:
    def __init__(self, root: Path) -> None:
        self.root = root

    def read(self, path: str) -> str:
        return (self.root / path).read_text()

    def has(self, path: str) -> bool:
        return (self.root / path).exists()

    def tables(self) -> set[str]:
        found = (self.root / "packages/db/accord_db/schema").glob("*.py")
        return {name for path in found for name in re.findall(r'__tablename__ = "(\w+)"', path.read_text())}

    def reason_file(self, reason: str) -> str | None:
        """Which proto file declares the reason."""
        return next(
            (path for path in (REASONS, ACCORDS_REASONS) if re.search(rf"\b{reason} = ", self.read(path))), None
        )

    def existing(self, plural: str) -> Existing:
        """A feature that others refer to. Raises NotRecognised if its table and query are not as features have them."""
        path, queries = SCHEMA.format(plural), QUERIES.format(plural)
        if not self.has(path) or not self.has(queries):
            raise NotRecognised(f"there is no feature {plural!r}: {path} and {queries} must exist")
        model = _model(ast.parse(self.read(path)), plural)
        if model is None:
            raise NotRecognised(f"{path} has no class whose __tablename__ is {plural!r}")
        singular = "_".join(re.findall(r"[A-Z][a-z0-9]*", model.name)).lower()
        if f"async def get_{singular}(" not in self.read(queries):
            raise NotRecognised(f"{queries} has no function get_{singular}, which finds the row of a reference")
        bases = {base.id for base in model.bases if isinstance(base, ast.Name)}
        columns = dict(_columns(model))
        return Existing(
            Names(plural, singular),
            model.name,
            _owner(bases, columns),
            has_soft_delete="Shared" in bases or "deleted_at" in columns,
        )


def _model(module: ast.Module, table: str) -> ast.ClassDef | None:
    for node in module.body:
        if isinstance(node, ast.ClassDef) and f"__tablename__ = '{table}'" in ast.unparse(node):
            return node
    return None


def _columns(model: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for node in model.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id, ast.unparse(node.annotation)


def _owner(bases: set[str], columns: dict[str, str]) -> Owner:
    if "OwnedByAccount" in bases:
        return Owner.ACCOUNT
    if columns.get("organization_id") == "Mapped[UUID]":
        return Owner.ORGANIZATION
    return Owner.EITHER if "owner_id" in columns else Owner.NONE
