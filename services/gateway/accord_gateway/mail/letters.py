"""Letters: templates and their values, some of which are chosen by strangers.

`templates/NAME.txt` starts with the subject. `templates/NAME.html` is inserted into `layout.html`.
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
from accord_gateway.setting_values import ascii_domain

TEMPLATES = Path(__file__).parent / "templates"

# The page of the application that takes the token.
PAGES: Final = {
    Mail.VERIFY_EMAIL: "verify-email",
    Mail.CHANGE_EMAIL: "change-email",
    Mail.RESET_PASSWORD: "reset-password",
    Mail.INVITATION: "invitation",
}

# A letter is useless once its token has expired.
_LIFETIMES: Final = {
    Mail.VERIFY_EMAIL.value: account_tokens.VERIFY_EMAIL.lifetime,
    Mail.CHANGE_EMAIL.value: account_tokens.CHANGE_EMAIL.lifetime,
    Mail.RESET_PASSWORD.value: account_tokens.RESET_PASSWORD.lifetime,
}
_DEFAULT_LIFETIME: Final = timedelta(days=3)

# Values chosen by strangers, each with the replacement for one that a mail program may show as a link.
_NAMES: Final = {"display_name": "there", "inviter": "A member", "organization": "an organization"}

# Variables of every template, in addition to the values of its mail.
_COMMON: Final = frozenset({"service", "app_url"})


class Letter(NamedTuple):
    """A message and its envelope. Mail servers deliver by the envelope."""

    sender: str
    recipient: str
    message: EmailMessage


class TemplateError(StartupError):
    """A template is missing, or its variables are not those of its mail."""


class Letters:
    """Raises TemplateError unless every mail has templates that use exactly its values."""

    def __init__(self, *, mail_from: str, app_url: str, templates: Path = TEMPLATES) -> None:
        self._sender = address(mail_from)
        self._app_url = app_url
        self._layout = Template(_read(templates / "layout.html"))
        self._templates = {mail: _Templates.of(mail, templates) for mail in Mail}

    def write(self, mail: Mail, content: Content, *, message_id: UUID, created_at: datetime) -> Letter:
        """Returns the same letter for the same message. Mail programs recognise a duplicate by its Message-ID."""
        templates, recipient = self._templates[mail], _parse(content.to)
        values = self._values(mail, content.values)
        message = EmailMessage(policy=SMTP)
        message["From"] = self._sender
        message["To"] = recipient
        message["Subject"] = templates.subject.substitute(values)
        message["Date"] = created_at
        message["Message-ID"] = f"<{message_id}@{self._sender.domain}>"
        message["Auto-Submitted"] = "auto-generated"  # no automatic replies (RFC 3834, section 5)
        _set_bodies(message, templates.text.substitute(values), self._html(templates, values))
        return Letter(self._sender.addr_spec, recipient.addr_spec, message)

    def _html(self, templates: "_Templates", values: dict[str, str]) -> str:
        escaped = {name: escape(value) for name, value in values.items()}
        body = templates.html.substitute(escaped)
        return self._layout.substitute(subject=escape(templates.subject.substitute(values)), body=body)

    def _values(self, mail: Mail, given: dict[str, str]) -> dict[str, str]:
        values = {name: _printable(value) for name, value in given.items()}
        values |= {name: _name(values[name], default) for name, default in _NAMES.items() if name in values}
        if page := PAGES.get(mail):
            # Browsers do not send the fragment, so the token reaches no access log and no Referer header.
            values["link"] = f"{self._app_url}/{page}#token={quote(given['token'], safe='')}"
        service = self._sender.display_name or self._sender.domain
        return values | {"service": service, "app_url": self._app_url}


def lifetime(template: str) -> timedelta:
    """The age at which a message is discarded. The template may be one of a later release."""
    return _LIFETIMES.get(template, _DEFAULT_LIFETIME)


class _Templates(NamedTuple):
    subject: Template
    text: Template
    html: Template

    @classmethod
    def of(cls, mail: Mail, folder: Path) -> "_Templates":
        first, _, text = _read(folder / f"{mail}.txt").partition("\n\n")
        if not first.startswith("Subject: ") or "\n" in first:
            raise TemplateError(f"{mail}.txt must start with `Subject: …` and an empty line.")
        templates = cls(
            Template(first.removeprefix("Subject: ")), Template(text), Template(_read(folder / f"{mail}.html"))
        )
        templates._check(mail)
        return templates

    def _check(self, mail: Mail) -> None:
        needed = mail.takes | ({"link"} if mail in PAGES else frozenset())
        if unknown := _variables(self.subject) - needed:
            raise TemplateError(f"The subject of {mail}.txt uses unknown variables: {sorted(unknown)}.")
        for name, template in ((f"{mail}.txt", self.text), (f"{mail}.html", self.html)):
            if (used := _variables(template)) != needed:
                raise TemplateError(f"{name} must use {sorted(needed)}. It uses {sorted(used)}.")


def _variables(template: Template) -> set[str]:
    if not template.is_valid():
        raise TemplateError(f"A mail template has a $ that is neither $name nor $$: {template.template!r}")
    return set(template.get_identifiers()) - _COMMON


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise TemplateError(f"Cannot read a mail template: {error}") from None


def _set_bodies(message: EmailMessage, text: str, html: str) -> None:
    message.set_content(text, cte=_encoding(text))
    message.add_alternative(html, subtype="html", cte=_encoding(html))


def _encoding(text: str) -> str:
    """Never base64: tokens in files of development stay searchable."""
    return "7bit" if text.isascii() else "quoted-printable"


def address(mail_from: str) -> Address:
    """Parses `Example <accounts@example.com>`."""
    return _parse(*reversed(parseaddr(mail_from)))


def _parse(text: str, display_name: str = "") -> Address:
    """The domain becomes ASCII, which every mail server accepts. A local part that is not ASCII requires SMTPUTF8."""
    local, _, domain = text.rpartition("@")
    return Address(display_name, local, ascii_domain(domain))


_JOINERS: Final = "\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}"  # Persian and some emoji need them
_UNPRINTABLE: Final = ("Cc", "Cf", "Cs", "Zl", "Zp")


def _printable(value: str) -> str:
    """Removes line breaks, which could add a header, and characters that reverse the direction of the following text."""
    return "".join(char for char in value if char in _JOINERS or unicodedata.category(char) not in _UNPRINTABLE)


_LIKE_A_LINK: Final = re.compile(r"[/\\:@]|[.。．｡]\w\w")


def _name(name: str, default: str) -> str:
    """Strangers can sign up with, or invite, an address that is not theirs. They must not be able to mail it a link."""
    return default if _LIKE_A_LINK.search(name) or not name.strip() else name
