"""The command `accord`."""

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from accord_gateway import output
from accord_gateway.errors import StartupError

if TYPE_CHECKING:
    from accord_gateway.cli.doctor.finding import Finding


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status. A command imports what it needs, so that no command waits for the imports of another."""
    output.tolerate_failures()
    chosen = _parser().parse_args(arguments)
    try:
        return _carry_out(chosen)
    except StartupError as refused:
        print(f"accord: {refused}", file=sys.stderr)
        return refused.exit_code
    except KeyboardInterrupt:
        return 130


def _carry_out(chosen: argparse.Namespace) -> int:
    match chosen.command:
        case "worker":
            from accord_gateway.process.worker import work

            work(chosen.figures)
        case "serve":
            from accord_gateway.process.serve import serve
            from accord_gateway.settings import read_settings

            serve(read_settings())
        case "migrate":
            from accord_gateway.cli.migrate import migrate
            from accord_gateway.settings import read_settings

            migrate(read_settings())
            print("The database is at the last migration.")
        case "rotate-keys":
            from accord_gateway.cli.rotate_keys import rotate_keys
            from accord_gateway.settings import read_settings

            rotation = rotate_keys(read_settings())
            print(rotation)
            return 0 if rotation.complete else 1
        case "account":
            return _change_account(chosen)
        case "admin":
            from accord_gateway.cli.admin import change_administrator
            from accord_gateway.settings import read_settings

            change_administrator(read_settings(), chosen.action, chosen.email)
            print(f"{chosen.email} is {'an administrator' if chosen.action == 'grant' else 'no administrator'}.")
        case "doctor":
            from accord_gateway.cli.doctor import examine

            return _show(examine())
    return 0


def _change_account(chosen: argparse.Namespace) -> int:
    from accord_gateway.cli.account import Ban, change_account, parse_time
    from accord_gateway.settings import read_settings

    until = parse_time(chosen.until) if chosen.until else None
    ended = change_account(read_settings(), chosen.action, chosen.email, Ban(chosen.reason, until))
    banned = f"banned until {until:%Y-%m-%d %H:%M %Z}" if until else "banned"
    print(f"{chosen.email} is {banned if chosen.action == 'ban' else 'not banned'}. Sessions ended: {ended}.")
    return 0


def _show(findings: "Iterable[Finding]") -> int:
    faults = 0
    for finding in findings:
        print(finding, flush=True)
        faults += finding.is_fault
    print(f"\nIn all {faults} to put right." if faults else "\nNothing is wrong.")
    return 1 if faults else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="accord", description="A contract-first gRPC backend on PostgreSQL.")
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="serve | migrate | account | admin | rotate-keys | doctor"
    )
    commands.add_parser("serve", help="serve until Ctrl-C or SIGTERM")
    commands.add_parser("migrate", help="bring the database to this release's schema")
    commands.add_parser("rotate-keys", help="encrypt with the first of ENCRYPTION_KEYS what the others have encrypted")
    account = commands.add_parser("account", help="ban somebody's account, or lift the ban")
    account.add_argument("action", choices=["ban", "unban"])
    account.add_argument("email")
    account.add_argument(
        "--until", metavar="TIME", help="when the ban ends, such as 2030-01-31T18:00Z; never if not given"
    )
    account.add_argument("--reason", metavar="TEXT", help="why, for other administrators: the person is not told")
    admin = commands.add_parser("admin", help="make somebody an administrator of this installation, or no longer one")
    admin.add_argument("action", choices=["grant", "revoke"])
    admin.add_argument("email")
    commands.add_parser("doctor", help="find what is wrong with settings, database, ports and installation")
    commands.add_parser("worker").add_argument("figures", type=Path)  # what `serve` starts; not for people
    return parser


if __name__ == "__main__":
    sys.exit(main())
