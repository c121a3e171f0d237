"""Names of features and fields: plural and singular, the forms that each layer uses, and which names are refused."""

import keyword
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

IDENTIFIER: Final = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
# PostgreSQL cuts names after 63 bytes, and names of constraints and indexes contain those of the table and its columns.
LONGEST_FEATURE: Final = 30
LONGEST_FIELD: Final = 40

# Columns that the kernel owns, and fields of the standard requests.
KERNEL_COLUMNS: Final = frozenset(
    ("id", "etag", "created_at", "updated_at", "deleted_at", "created_by", "owner_id", "organization_id")
)
REQUEST_FIELDS: Final = frozenset(
    (
        "page_size",
        "page_token",
        "order_by",
        "show_deleted",
        "include_total_size",
        "request_id",
        "update_mask",
        "view",
        "next_page_token",
        "total_size",
        "expand",
        "requests",
    )
)
# Reserved in PostgreSQL 18 (pg_get_keywords, catcode R and T): usable only in quotes.
SQL_WORDS: Final = frozenset(
    [
        "all",
        "analyse",
        "analyze",
        "and",
        "any",
        "array",
        "as",
        "asc",
        "asymmetric",
        "authorization",
        "binary",
        "both",
        "case",
        "cast",
        "check",
        "collate",
        "collation",
        "column",
        "concurrently",
        "constraint",
        "create",
        "cross",
        "current_catalog",
        "current_date",
        "current_role",
        "current_schema",
        "current_time",
        "current_timestamp",
        "current_user",
        "default",
        "deferrable",
        "desc",
        "distinct",
        "do",
        "else",
        "end",
        "except",
        "false",
        "fetch",
        "for",
        "foreign",
        "freeze",
        "from",
        "full",
        "grant",
        "group",
        "having",
        "ilike",
        "in",
        "initially",
        "inner",
        "intersect",
        "into",
        "is",
        "isnull",
        "join",
        "lateral",
        "leading",
        "left",
        "like",
        "limit",
        "localtime",
        "localtimestamp",
        "natural",
        "not",
        "notnull",
        "null",
        "offset",
        "on",
        "only",
        "or",
        "order",
        "outer",
        "overlaps",
        "placing",
        "primary",
        "references",
        "returning",
        "right",
        "select",
        "session_user",
        "similar",
        "some",
        "symmetric",
        "system_user",
        "table",
        "tablesample",
        "then",
        "to",
        "trailing",
        "true",
        "union",
        "unique",
        "user",
        "using",
        "variadic",
        "verbose",
        "when",
        "where",
        "window",
        "with",
    ]
)
# Words of the proto language, which cannot be the name of a package.
PROTO_WORDS: Final = frozenset(
    [
        "bool",
        "bytes",
        "double",
        "enum",
        "extend",
        "extensions",
        "fixed32",
        "fixed64",
        "float",
        "group",
        "import",
        "int32",
        "int64",
        "map",
        "max",
        "message",
        "oneof",
        "option",
        "optional",
        "package",
        "public",
        "repeated",
        "reserved",
        "returns",
        "rpc",
        "service",
        "sfixed32",
        "sfixed64",
        "sint32",
        "sint64",
        "stream",
        "string",
        "syntax",
        "uint32",
        "uint64",
        "weak",
    ]
)
# Names that the generated code uses where a column or a key with the same name would hide them.
CODE_WORDS: Final = frozenset(
    [
        "any_",
        "bindparam",
        "bool",
        "bytes",
        "caller",
        "changes",
        "client",
        "context",
        "date",
        "datetime",
        "db",
        "dict",
        "etag",
        "fields",
        "filters",
        "float",
        "found",
        "func",
        "int",
        "list",
        "mapped_column",
        "me",
        "metadata",
        "new",
        "one_of",
        "page",
        "refused",
        "registry",
        "request",
        "response",
        "row",
        "rows",
        "select",
        "self",
        "some_of",
        "str",
        "tenant_exempt",
        "tx",
        "update",
        "world",
    ]
)

_IRREGULAR: Final = {
    "people": "person",
    "children": "child",
    "men": "man",
    "women": "woman",
    "feet": "foot",
    "teeth": "tooth",
    "mice": "mouse",
    "geese": "goose",
    "criteria": "criterion",
    "phenomena": "phenomenon",
    "indices": "index",
    "vertices": "vertex",
    "matrices": "matrix",
    "analyses": "analysis",
    "bases": "base",
    "caches": "cache",
    "databases": "database",
    "axes": "axis",
    "crises": "crisis",
    "diagnoses": "diagnosis",
    "theses": "thesis",
    "movies": "movie",
    "cookies": "cookie",
    "ties": "tie",
    "leaves": "leaf",
    "knives": "knife",
    "lives": "life",
    "shelves": "shelf",
    "halves": "half",
    "quizzes": "quiz",
    "heroes": "hero",
    "potatoes": "potato",
    "lenses": "lens",
    "buses": "bus",
    "statuses": "status",
    "aliases": "alias",
    "viruses": "virus",
    "campuses": "campus",
    "bonuses": "bonus",
    "gases": "gas",
}
# After these, `es` is the plural: boxes, addresses, branches, dishes, echoes.
_ES: Final = ("ss", "x", "ch", "sh", "zz")


def singular_of(plural: str) -> str | None:
    """The singular of the last word; None if the rules do not know it (`data`, `news`, `series`), so that it has to be given."""
    before, _, last = plural.rpartition("_")
    word = _singular_word(last)
    return None if word is None else f"{before}_{word}" if before else word


def _singular_word(word: str) -> str | None:
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if len(word) < 3 or not word.endswith("s") or word.endswith(("ss", "us", "is", "news", "series", "species")):
        return None
    if word.endswith("ies"):
        return f"{word[:-3]}y" if len(word) > 4 else word[:-1]
    if word.endswith("es") and word[:-2].endswith(_ES):
        return word[:-2]
    return word[:-1]


def words(name: str) -> str:
    """`fun facts` for `fun_facts`."""
    return name.replace("_", " ")


def pascal(name: str) -> str:
    """`FunFact` for `fun_fact`."""
    return "".join(word.capitalize() for word in name.split("_"))


def article(noun: str) -> str:
    """`an` before a vowel as it sounds: an invoice, an hour, a user."""
    if re.match(r"(hour|honest|heir|honou?r)", noun):
        return "an"
    return "an" if re.match(r"(?!(uni|us[aeiu]|ut[ei]|eu|one\b|once))[aeiou]", noun) else "a"


@dataclass(frozen=True, slots=True)
class Names:
    """The forms of a feature's name. `plural` and `singular` are in snake case: `fun_facts`, `fun_fact`."""

    plural: str
    singular: str

    @property
    def message(self) -> str:
        return pascal(self.singular)

    @property
    def messages(self) -> str:
        return pascal(self.plural)

    @property
    def service(self) -> str:
        return f"{self.message}Service"

    @property
    def constant(self) -> str:
        return self.singular.upper()

    @property
    def constants(self) -> str:
        return self.plural.upper()

    @property
    def route(self) -> str:
        """In a URL: `funFacts`."""
        first, *others = self.plural.split("_")
        return first + "".join(word.capitalize() for word in others)

    @property
    def words(self) -> str:
        return words(self.singular)

    @property
    def many(self) -> str:
        return words(self.plural)

    @property
    def a(self) -> str:
        """`a fun fact`, `an invoice`."""
        return f"{article(self.words)} {self.words}"

    @property
    def id(self) -> str:
        return f"{self.singular}_id"


def feature_names(plural: str, singular: str | None = None) -> Names:
    """Check `name_faults` first."""
    return Names(plural, singular or singular_of(plural) or plural)


def name_faults(plural: str, singular: str | None = None) -> Iterator[str]:
    """Faults of a feature's name on its own; `repository.py` compares it with the names that exist."""
    if fault := identifier_fault(plural, LONGEST_FEATURE):
        yield f"feature {plural!r}: {fault}"
        return
    found = singular or singular_of(plural)
    if found is None:
        yield f"feature {plural!r}: its singular is not known. Give it: --singular NAME"
        return
    if fault := identifier_fault(found, LONGEST_FEATURE):
        yield f"singular {found!r}: {fault}"
    elif found == plural:
        yield f"feature {plural!r}: plural and singular are the same. Name it after several things, or give --singular NAME"
    for name in {plural, found}:
        if reason := reserved(name) or ("it is a word of the proto language" if name in PROTO_WORDS else None):
            yield f"feature {name!r}: {reason}. Choose another name"


def identifier_fault(name: str, longest: int) -> str | None:
    if not IDENTIFIER.fullmatch(name):
        return "a name has small letters, digits and single underscores, and begins with a letter: fun_facts"
    if len(name) > longest:
        return f"the name has more than {longest} characters. Shorten it"
    return None


def reserved(name: str) -> str | None:
    """Why the name cannot be that of a table, column or variable."""
    if keyword.iskeyword(name) or name in keyword.softkwlist:
        return "it is a word of Python"
    if name in SQL_WORDS:
        return "it is a reserved word of SQL"
    return None


def field_name_fault(name: str) -> str | None:
    """Why a field cannot have the name."""
    if fault := identifier_fault(name, LONGEST_FIELD):
        return fault
    if name in KERNEL_COLUMNS:
        return "the kernel has a column with this name. Choose another name"
    if name in REQUEST_FIELDS:
        return "the standard requests have a field with this name. Choose another name"
    if name in CODE_WORDS:
        return "the code of features uses this name. Choose another name"
    reason = reserved(name)
    return f"{reason}. Choose another name" if reason else None
