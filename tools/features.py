"""The features of Accord, and which tests concern one.

A feature is a plural noun that is the same in every layer: proto/accord/tasks/, queries/tasks.py, test_tasks.py.
"""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto/accord"
QUERIES = ROOT / "packages/db/accord_db/queries"


class Feature:
    """`methods` are the names of the RPCs of its services."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.methods = tuple(sorted(methods_in(PROTO / name)))
        stem = re.escape(name.removesuffix("s"))
        self._file = re.compile(rf"test_{stem}(s|_\w+)?\.py")
        self._test = re.compile(rf"_{stem}s?(_|$)")
        self._case = re.compile(rf"\b({'|'.join([re.escape(name), *self.methods])})\b")

    def concerns(self, file: str, test: str, case: str) -> bool:
        """Whether the file or the test is named after the feature, or the case after the feature or one of its
        methods. Tests of a rule for all methods or all tables have a case for each."""
        return bool(self._file.fullmatch(file) or self._test.search(test) or self._case.search(case))


def feature_names() -> list[str]:
    """Every package of the contract that has methods, and every module of queries."""
    packages = {folder.name for folder in PROTO.iterdir() if methods_in(folder)}
    return sorted(packages | {path.stem for path in QUERIES.glob("*.py") if not path.stem.startswith("_")})


def unknown_features(names: list[str]) -> str | None:
    """An error message if one of the names is not a feature."""
    known = feature_names()
    unknown = [name for name in names if name not in known]
    return f"No such feature: {', '.join(unknown)}. The features are: {', '.join(known)}." if unknown else None


def methods_in(folder: Path) -> set[str]:
    texts = (path.read_text() for path in folder.rglob("*.proto"))
    return {name for text in texts for name in re.findall(r"^ *rpc (\w+)", text, re.MULTILINE)}
