"""What people read: templates, filled with values that other people may have chosen.

`templates/NAME.txt` starts with the subject, `templates/NAME.html` is the inside of `layout.html`.
"""

import re
import unicodedata
from datetime import datetime, timedelta
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import parseaddr
from html import escape
from pathlib import Path
from string import Template
from typing import Final, NamedTuple
from urllib.parse import quote
from uuid import UUID

from accord_api import account_tokens
from accord_api.outbox import Content, Mail
from accord_gateway.errors import StartupError

TEMPLATES = Path(__file__).parent / "templates"

# The page of the application that each token is for.
PAGES: Final = {
    Mail.VERIFY_EMAIL: "verify-email",
    Mail.CHANGE_EMAIL: "change-email",
    Mail.RESET_PASSWORD: "reset-password",
    Mail.INVITATION: "invitation",
}

# How long a letter is worth sending: no longer than the token in it works.
_USEFUL: Final = {
    Mail.VERIFY_EMAIL.value: account_tokens.VERIFY_EMAIL.lifetime,
    Mail.CHANGE_EMAIL.value: account_tokens.CHANGE_EMAIL.lifetime,
    Mail.RESET_PASSWORD.value: account_tokens.RESET_PASSWORD.lifetime,
}
_LONGEST_USEFUL = timedelta(days=3)

# The names that strangers choose, and what is written in the place of one that could be taken for a link.
_NAMES: Final = {"display_name": "there", "inviter": "somebody", "organization": "an organization"}

# What a template may use besides the values of its mail.
_OURS = frozenset({"service", "app_url"})


class Letter(NamedTuple):
    """A message and its envelope, which is what counts for its way."""

    sender: str
    recipient: str
    message: EmailMessage


class TemplateFault(StartupError):
    """A mail and its templates do not fit each other."""


class Letters:
    """Raises TemplateFault unless every mail has its templates, and they use what it takes and nothing else."""

    def __init__(self, *, mail_from: str, app_url: str, templates: Path = TEMPLATES) -> None:
        self._sender = address(mail_from)
        self._app_url = app_url
        self._layout = Template(_read(templates / "layout.html"))
        self._templates = {mail: _Templates.of(mail, templates) for mail in Mail}

    def write(self, mail: Mail, content: Content, *, message_id: UUID, created_at: datetime) -> Letter:
        """The same letter for the same message, however often it is tried: by its Message-ID a reader's program can tell
        that one it gets twice is one."""
        templates, recipient = self._templates[mail], _in_ascii(content.to)
        values = self._values(mail, content.values)
        message = EmailMessage(policy=SMTP)
        message["From"] = self._sender
        message["To"] = recipient
        message["Subject"] = templates.subject.substitute(values)
        message["Date"] = created_at
        message["Message-ID"] = f"<{message_id}@{self._sender.domain}>"
        message["Auto-Submitted"] = "auto-generated"  # so that nobody's absence note answers it (RFC 3834, 5)
        _set_bodies(message, templates.text.substitute(values), self._html(templates, values))
        return Letter(self._sender.addr_spec, recipient.addr_spec, message)

    def _html(self, templates: "_Templates", values: dict[str, str]) -> str:
        escaped = {name: escape(value) for name, value in values.items()}
        body = templates.html.substitute(escaped)
        return self._layout.substitute(subject=escape(templates.subject.substitute(values)), body=body)

    def _values(self, mail: Mail, given: dict[str, str]) -> dict[str, str]:
        values = {name: _printable(value) for name, value in given.items()}
        values |= {name: _name(values[name], instead) for name, instead in _NAMES.items() if name in values}
        if page := PAGES.get(mail):
            # Browsers keep what follows # to themselves: the token is in no server's log and no Referer.
            values["link"] = f"{self._app_url}/{page}#token={quote(given['token'], safe='')}"
        service = self._sender.display_name or self._sender.domain
        return values | {"service": service, "app_url": self._app_url}


def useful_for(template: str) -> timedelta:
    """How long after it was posted a message is still worth sending, be its template one that we know or not."""
    return _USEFUL.get(template, _LONGEST_USEFUL)


class _Templates(NamedTuple):
    subject: Template
    text: Template
    html: Template

    @classmethod
    def of(cls, mail: Mail, folder: Path) -> "_Templates":
        first, _, text = _read(folder / f"{mail}.txt").partition("\n\n")
        if not first.startswith("Subject: ") or "\n" in first:
            raise TemplateFault(f"{mail}.txt does not start with `Subject: …` and an empty line.")
        templates = cls(
            Template(first.removeprefix("Subject: ")), Template(text), Template(_read(folder / f"{mail}.html"))
        )
        templates._check(mail)
        return templates

    def _check(self, mail: Mail) -> None:
        needed = mail.takes | ({"link"} if mail in PAGES else frozenset())
        if unknown := _used(self.subject) - needed:
            raise TemplateFault(f"The subject of {mail}.txt uses {sorted(unknown)}, which it is not given.")
        for name, template in ((f"{mail}.txt", self.text), (f"{mail}.html", self.html)):
            if (used := _used(template)) != needed:
                raise TemplateFault(f"{name} is to use {sorted(needed)}, and uses {sorted(used)}.")


def _used(template: Template) -> set[str]:
    if not template.is_valid():
        raise TemplateFault(f"A $ in a template of mail is neither $name nor $$: {template.template!r}")
    return set(template.get_identifiers()) - _OURS


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise TemplateFault(f"A template of mail is missing: {error}") from None


def _set_bodies(message: EmailMessage, text: str, html: str) -> None:
    message.set_content(text, cte=_encoding(text))
    message.add_alternative(html, subtype="html", cte=_encoding(html))


def _encoding(text: str) -> str:
    """Never base64: whoever looks at a kept message is to find its token."""
    return "7bit" if text.isascii() else "quoted-printable"


def address(mail_from: str) -> Address:
    """`Example <accounts@example.com>` in its parts."""
    return _in_ascii(*reversed(parseaddr(mail_from)))


def _in_ascii(text: str, display_name: str = "") -> Address:
    """The domain is, as every server knows it. A local part that is not needs a server that knows SMTPUTF8."""
    local, _, domain = text.rpartition("@")
    return Address(display_name, local, domain.encode("idna").decode())


_JOINERS = "\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}"  # needed to write Persian, and some emoji


def _printable(value: str) -> str:
    """Without what ends a line (and so a header), or turns the direction of what follows it."""
    unprintable = ("Cc", "Cf", "Cs", "Zl", "Zp")
    return "".join(sign for sign in value if sign in _JOINERS or unicodedata.category(sign) not in unprintable)


_LIKE_AN_ADDRESS = re.compile(r"[/\\:@]|[.。．｡]\w\w")


def _name(name: str, instead: str) -> str:
    """Anybody can sign up with somebody else's address, or invite it, and must not get to mail them links under our name."""
    return instead if _LIKE_AN_ADDRESS.search(name) or not name.strip() else name
