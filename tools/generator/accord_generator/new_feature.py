"""`accord new feature`: prints the plan, asks, writes, and checks what it has written."""

import argparse
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic
from typing import NamedTuple

from accord_generator.errors import NotRecognised, Refused
from accord_generator.feature import Existing, Feature, Owner, Standard
from accord_generator.fields import Field, Kind, parse_fields
from accord_generator.names import feature_names, name_faults
from accord_generator.plan import Plan, plan_of, shown
from accord_generator.repository import FILES, Repository, find_root

_ORDERED = (Kind.STRING, Kind.INT32, Kind.INT64, Kind.FLOAT, Kind.TIMESTAMP, Kind.DATE)
_NULLABLE_ORDERS = (Kind.TIMESTAMP, Kind.DATE)
_LONGEST_INDEX = 63  # characters of a name in PostgreSQL


def new_feature(options: argparse.Namespace) -> int:
    try:
        root = find_root(Path.cwd())
        repository = Repository(root)
        plan = plan_of(feature_of(options, repository), repository)
    except (Refused, NotRecognised) as refused:
        print(f"accord new feature: nothing was written.\n{refused}", file=sys.stderr)
        return 2
    print("\n".join(shown(plan)))
    _warn_of_changes(root, plan)
    if options.plan:
        return 0
    if not options.yes and not _agreed():
        print("Nothing was written.")
        return 1
    return _carry_out(plan, root)


def feature_of(options: argparse.Namespace, repository: Repository) -> Feature:
    """Raises Refused with all faults."""
    faults = list(name_faults(options.name, options.singular))
    fields: list[Field] = []
    try:
        fields = parse_fields(options.fields)
    except Refused as refused:
        faults += refused.faults
    if not options.fields:
        faults.append("a feature has at least one field: 'title: string(1..200)'")
    if faults:
        raise Refused(faults)
    names = feature_names(options.name, options.singular)
    parent = _found(options.parent, repository, faults) if options.parent else None
    references = dict.fromkeys(field.reference.feature for field in fields if field.reference)
    referred = [_found(name, repository, faults) for name in references]
    if options.parent and options.owner:
        faults.append("--parent decides who owns the rows: leave out --owner")
    feature = Feature(
        names,
        tuple(fields),
        owner=Owner(options.owner or "organization"),
        parent=parent,
        referred=tuple(each for each in referred if each),
        methods=_methods(options, faults),
        soft_delete=not options.no_soft_delete,
        has_etag=not options.no_etag,
        filters=_listed(options.filters),
        orders=tuple(dict.fromkeys(("created_at", *(_listed(options.order) or ("updated_at",))))),
        search=options.search,
        basic=_listed(options.basic),
    )
    faults += [*_taken(feature, repository), *_list_faults(feature), *_owner_faults(feature)]
    if options.watch:
        faults.append("--watch: there are no events to watch yet. Leave it out")
    if options.batch:
        faults.append("--batch is not there yet: BatchGetTasks and BatchCreateTasks of tasks show how to write it")
    if faults:
        raise Refused(faults)
    return feature


def _found(plural: str, repository: Repository, faults: list[str]) -> Existing | None:
    try:
        return repository.existing(plural)
    except NotRecognised as error:
        faults.append(str(error))
        return None


def _listed(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


def _methods(options: argparse.Namespace, faults: list[str]) -> tuple[Standard, ...]:
    known = {str(method): method for method in Standard}
    names = _listed(options.methods) or tuple(known)
    faults += [
        f"--methods: there is no method {name!r}. There are {', '.join(known)}" for name in names if name not in known
    ]
    found = [known[name] for name in names if name in known]
    if options.no_soft_delete and not options.methods:
        found.remove(Standard.UNDELETE)
    if options.no_soft_delete and Standard.UNDELETE in found:
        faults.append("--no-soft-delete: a row that is deleted at once cannot be undeleted")
    if Standard.GET not in found:
        faults.append("--methods: get is needed; the other methods name what they have not found")
    return tuple(method for method in Standard if method in found)


def _taken(feature: Feature, repository: Repository) -> list[str]:
    n = feature.names
    faults = [f"{path.format(n.plural)} exists already" for path in FILES if repository.has(path.format(n.plural))]
    if n.plural in repository.tables():
        faults.append(f"there is a table {n.plural} already")
    reason = f"REASON_{n.constant}_NOT_FOUND"
    if path := repository.reason_file(reason):
        faults.append(f"{path} has {reason} already: choose another name")
    return faults


def _list_faults(feature: Feature) -> list[str]:
    fields = {field.name: field for field in feature.fields}
    faults = []
    given = (
        ("--list", feature.filters),
        ("--search", [feature.search] if feature.search else []),
        ("--basic", feature.basic),
    )
    for switch, names in given:
        faults += [f"{switch}: there is no field {name!r}" for name in names if name not in fields]
    for name in feature.orders:
        field = fields.get(name)
        if name in ("created_at", "updated_at"):
            continue
        if field is None:
            faults.append(f"--order: there is no field {name!r}")
        elif field.is_array or field.kind not in _ORDERED:
            faults.append(
                f"--order: a list cannot be ordered by {name}, which is {'an array' if field.is_array else f'a {field.kind}'}"
            )
        elif feature.basic and name not in feature.basic:
            faults.append(f"--order: {name} is not in --basic, and a list reads only those fields")
        elif field.optional and field.kind not in _NULLABLE_ORDERS:
            faults.append(
                f"--order: {name} is optional; only times and dates that are unset have a place in an order: the last"
            )
    if feature.search in fields and fields[feature.search].kind is not Kind.STRING:
        faults.append(f"--search: {feature.search} is not a string")
    faults += [
        f"--list: {name} is json, and json has no filter"
        for name in feature.filters
        if name in fields and fields[name].kind is Kind.JSON
    ]
    if feature.basic and not set(fields) - set(feature.basic):
        faults.append("--basic names all fields: then the view FULL has no more than BASIC. Leave it out")
    if Standard.UPDATE in feature.methods and not feature.changeable:
        faults.append("no field can be changed: leave out update with --methods, or make a field changeable")
    for field in feature.uniques:
        if len(name := f"uq_{feature.names.plural}_{field.name}") > _LONGEST_INDEX:
            faults.append(f"the index {name} has more than {_LONGEST_INDEX} characters: shorten the field")
    return faults


def _owner_faults(feature: Feature) -> list[str]:
    if feature.owner is Owner.NONE:
        return [
            "--owner none is not there yet: AdminService shows methods for administrators, which name their audit target"
        ]
    if feature.parent and feature.parent.owner is Owner.NONE:
        return [f"--parent {feature.parent.names.plural}: its rows have no owner of their own, which is not there yet"]
    owner = feature.rows_owner
    allowed = {owner} if owner is Owner.EITHER else {owner, Owner.EITHER}
    return [
        f"{each.names.plural} belong to {each.owner}, so {feature.names.plural} of {owner} cannot refer to them"
        for each in feature.referred
        if each.owner not in allowed
    ]


def _warn_of_changes(root: Path, plan: Plan) -> None:
    done = subprocess.run(["git", "status", "--porcelain"], cwd=root, capture_output=True, text=True)
    if done.returncode == 0 and done.stdout.strip():
        print("\nThis checkout has changes that are not committed. These files will be touched as well:")
        print("\n".join(f"  {path}" for path in plan.paths))


def _agreed() -> bool:
    try:
        return input("\nWrite this? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


# --- writing and checking ---------------------------------------------------------------------------------------------
class Step(NamedTuple):
    name: str
    command: tuple[str, ...]


def _carry_out(plan: Plan, root: Path) -> int:
    began = monotonic()
    plan.write(root)
    name = plan.feature.names.plural
    python = [path for path in plan.paths if path.endswith(".py")]
    contract = [path for path in plan.paths if path.endswith(".proto")]
    first = (
        Step("contract: format", ("buf", "format", "-w", "proto", *(f"--path={path}" for path in contract))),
        Step("contract: stubs", ("python", "tools/stubs.py")),
        Step("imports", ("ruff", "check", "--fix-only", "--quiet", *python)),
        Step("format", ("ruff", "format", "--quiet", *python)),
        Step("migration", ("python", "-m", "accord_db.migrate", "new", f"add {name}")),
    )
    checks = (
        Step("lint", ("ruff", "check")),
        Step("types", ("mypy",)),
        Step("contract: style", ("python", "tools/contract.py", "lint")),
        Step("policies", ("python", "tools/policies.py")),
        Step("migrations", ("python", "-m", "accord_db.migrate", "check")),
        Step(f"tests of {name}", ("pytest", "-q", "-n0", "--no-header", f"tests/api/test_{name}.py")),
    )
    print()
    if not all(_run(step, root) for step in first) or not _run_together(checks, root):
        print(
            f"\nThe files of {name} are there. To undo: git checkout -- . && git clean -fd, if nothing else was changed."
        )
        return 1
    print(f"\n{name} is there after {monotonic() - began:.0f} s. Next:\n")
    print("\n".join(_next(plan)))
    return 0


def _run_together(steps: Sequence[Step], root: Path) -> bool:
    with ThreadPoolExecutor(2) as pool:
        return all(passed for passed in pool.map(lambda step: _run(step, root), steps))


def _run(step: Step, root: Path) -> bool:
    began = monotonic()
    program, *arguments = step.command
    path = Path(sysconfig.get_path("scripts")) / program
    done = subprocess.run([path, *arguments], cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    passed = done.returncode == 0
    print(f"{step.name:.<28} {'ok' if passed else 'failed'}  {monotonic() - began:.1f} s", flush=True)
    if not passed:
        print(done.stdout)
    return passed


def _next(plan: Plan) -> list[str]:
    name = plan.feature.names.plural
    return [
        "  git diff                        # it is yours: read it, and change what is special",
        f"  make check args={name:<16} # all checks, and every test that concerns it",
        "  make run                        # and call it at http://127.0.0.1:50051/docs",
    ]
