"""The command `accord`. Each subcommand imports what it needs, so that none waits for the imports of another."""

import argparse
import gc
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING

from accord_gateway import output
from accord_gateway.errors import StartupError

if TYPE_CHECKING:
    from accord_gateway.cli.doctor.finding import Finding

ALLOCATIONS_PER_COLLECTION = 10_000  # with the default of 700, visiting what imports create takes a tenth of their time


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    output.tolerate_failures()
    arguments = sys.argv[1:] if arguments is None else arguments
    gc.set_threshold(ALLOCATIONS_PER_COLLECTION)
    try:
        return _run(_parser(next(iter(arguments), "")).parse_args(arguments))
    finally:
        gc.freeze()  # the process ends: without this, Python visits every object again, which takes a quarter of a second


def _run(options: argparse.Namespace) -> int:
    try:
        status: int = options.run(options)
    except StartupError as error:
        print(f"accord: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return status


def _serve(_: argparse.Namespace) -> int:
    from accord_gateway.process.serve import serve
    from accord_gateway.settings import read_settings

    serve(read_settings())
    return 0


def _reload(_: argparse.Namespace) -> int:
    from accord_gateway.cli.reload import reload

    print(f"The gateway serves with the new code and settings, after {reload()} s.")
    return 0


def _migrate(_: argparse.Namespace) -> int:
    from accord_gateway.cli.migrate import migrate
    from accord_gateway.settings import read_settings

    migrate(read_settings())
    print("The database is at the last migration.")
    return 0


def _change_account(options: argparse.Namespace) -> int:
    from accord_gateway.cli.account import Ban, change_account, parse_time
    from accord_gateway.settings import read_settings

    until = parse_time(options.until) if options.until else None
    ended = change_account(read_settings(), options.action, options.email, Ban(options.reason, until))
    banned = f"banned until {until:%Y-%m-%d %H:%M %Z}" if until else "banned"
    print(f"{options.email} is {banned if options.action == 'ban' else 'not banned'}. Sessions ended: {ended}.")
    return 0


def _change_administrator(options: argparse.Namespace) -> int:
    from accord_gateway.cli.admin import change_administrator
    from accord_gateway.settings import read_settings

    change_administrator(read_settings(), options.action, options.email)
    print(f"{options.email} is {'an administrator' if options.action == 'grant' else 'not an administrator'}.")
    return 0


def _rotate_keys(_: argparse.Namespace) -> int:
    from accord_gateway.cli.rotate_keys import rotate_keys
    from accord_gateway.settings import read_settings

    rotation = rotate_keys(read_settings())
    print(rotation)
    return 0 if rotation.complete else 1


def _diagnose(_: argparse.Namespace) -> int:
    from accord_gateway.cli.doctor import diagnose

    return _print_findings(diagnose())


def _print_findings(findings: "Iterable[Finding]") -> int:
    problems = 0
    for finding in findings:
        print(finding, flush=True)
        problems += finding.is_problem
    print(f"\n{problems or 'No'} problem{'' if problems == 1 else 's'} found.")
    return 1 if problems else 0


def _run_worker(options: argparse.Namespace) -> int:
    from accord_gateway.process.worker import run_worker

    run_worker(options.metrics_folder, options.sockets)
    return 0


def _parser(first: str) -> argparse.ArgumentParser:
    """`first` is the first argument. Only if no command has its name are other packages searched for it, which takes a tenth of a
    second."""
    parser = argparse.ArgumentParser(prog="accord", description="A contract-first gRPC backend on PostgreSQL.")
    commands = parser.add_subparsers(
        required=True, metavar="serve | reload | migrate | account | admin | rotate-keys | doctor | …"
    )

    commands.add_parser("serve", help="serve until Ctrl-C or SIGTERM").set_defaults(run=_serve)
    commands.add_parser("reload", help="replace the workers of the running gateway by new ones").set_defaults(
        run=_reload
    )
    commands.add_parser("migrate", help="migrate the database to this release's schema").set_defaults(run=_migrate)

    account = commands.add_parser("account", help="ban an account, or lift its ban")
    account.add_argument("action", choices=["ban", "unban"])
    account.add_argument("email")
    account.add_argument("--until", metavar="TIME", help="end of the ban, such as 2030-01-31T18:00Z (default: no end)")
    account.add_argument("--reason", metavar="TEXT", help="the reason, which only administrators see")
    account.set_defaults(run=_change_account)

    admin = commands.add_parser("admin", help="grant or revoke the administrator role")
    admin.add_argument("action", choices=["grant", "revoke"])
    admin.add_argument("email")
    admin.set_defaults(run=_change_administrator)

    commands.add_parser("rotate-keys", help="re-encrypt stored values with the first of ENCRYPTION_KEYS").set_defaults(
        run=_rotate_keys
    )
    commands.add_parser("doctor", help="check settings, database, ports and installation").set_defaults(run=_diagnose)

    worker = commands.add_parser("worker")  # started by `serve`, not by users
    worker.add_argument("metrics_folder", type=Path)
    worker.add_argument("sockets", type=int, nargs="*")
    worker.set_defaults(run=_run_worker)

    if first not in commands.choices:
        # Commands of other installed packages, such as the generator's: functions that add a parser.
        for command in entry_points(group="accord.commands"):
            command.load()(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
