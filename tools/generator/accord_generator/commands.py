"""The command `accord new feature`, as arguments. It imports what it needs when it runs, so that other commands do not wait."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001  # the only name of its type


def add_new(commands: "Commands") -> None:
    new = commands.add_parser("new", help="write a feature")
    things = new.add_subparsers(required=True, metavar="feature")
    feature = things.add_parser(
        "feature",
        help="write a feature: contract, table, queries, handlers, tests and migration",
        epilog=_FIELDS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    feature.add_argument("name", help="a plural noun: fun_facts")
    feature.add_argument("fields", nargs="*", metavar="FIELD", help="'text: string(1..500)'; see below")
    feature.add_argument("--singular", metavar="NAME", help="the singular, where the rules do not know it")
    feature.add_argument(
        "--owner",
        choices=["organization", "account", "either", "none"],
        help="who owns the rows: the active organization (default), the account, either, or nobody (administrators only)",
    )
    feature.add_argument(
        "--parent", metavar="FEATURE", help="the rows belong to those of this feature, and to their owner"
    )
    feature.add_argument(
        "--methods", metavar="LIST", help="some of list,get,create,update,delete,undelete (default: all)"
    )
    feature.add_argument("--batch", action="store_true", help="add BatchGet and BatchCreate")
    feature.add_argument("--list", metavar="FIELDS", help="the filters of the list: 'status, due_at'", dest="filters")
    feature.add_argument("--order", metavar="FIELDS", help="the orders of the list (default: created_at, updated_at)")
    feature.add_argument("--search", metavar="FIELD", help="a text field that the list searches, ignoring case")
    feature.add_argument("--basic", metavar="FIELDS", help="the fields of lists; others are in the view FULL")
    feature.add_argument("--no-soft-delete", action="store_true", help="delete rows at once, without Undelete")
    feature.add_argument("--no-etag", action="store_true", help="no versions of rows")
    feature.add_argument("--watch", action="store_true", help=argparse.SUPPRESS)
    _add_answers(feature)
    feature.set_defaults(run=_new_feature)


def _add_answers(parser: argparse.ArgumentParser) -> None:
    answers = parser.add_mutually_exclusive_group()
    answers.add_argument("--plan", action="store_true", help="print the plan and write nothing")
    answers.add_argument("--yes", action="store_true", help="write without asking")


def _new_feature(options: argparse.Namespace) -> int:
    from accord_generator.new_feature import new_feature

    return new_feature(options)


_FIELDS = """\
fields:
  name: type(limits)[count]? options = default

  number: string(1..32) unique          text of 1 to 32 characters, unique among the living of the owner
  code: string(3) pattern "^[A-Z]+$"    exactly 3 characters that match
  notes: string(0..500)? multiline      optional, with tabs and line breaks
  amount_cents: int64(0..)              int32, int64, float
  paid: bool = true
  status: enum(draft, sent) = draft
  due_at: timestamp?                    timestamp, date
  settings: json                        a JSON object
  token: uuid sensitive                 kept out of logs
  customer: ref(customers, restrict)    restrict, cascade or set null
  labels: string(1..30)[0..20]          an array of at most 20

  options: unique, sensitive, immutable (set when created), output (set by the server), multiline, pattern "…"
"""
