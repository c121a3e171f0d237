"""Letters: every mail has its templates, and names chosen by users stay text."""

import shutil
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path
from uuid import UUID

import pytest

from accord_api import account_tokens
from accord_api.handlers import invitations
from accord_api.outbox import Content, Mail
from accord_gateway.mail.letters import PAGES, TEMPLATES, Letter, Letters, TemplateError, lifetime
from tests.gateway.mail_server import body

ID = UUID("01a1fc8f-7880-77cc-8841-9eaddc89b756")
WHEN = datetime(2026, 11, 21, 5, 23, 43, tzinfo=UTC)
TOKEN = "acv_" + "Ab-_" * 12
VALUES = {
    "display_name": "Ada",
    "token": TOKEN,
    "new_email": "new@example.com",
    "provider": "Google",
    "device_name": "laptop",
    "peer": "192.0.2.7",
    "inviter": "Grace",
    "organization": "Acme",
}


def write(
    mail: Mail, to: str = "ada@example.com", mail_from: str = "Example <no@example.org>", **values: str
) -> Letter:
    values = {name: value for name, value in (VALUES | values).items() if name in mail.takes}
    letters = Letters(mail_from=mail_from, app_url="https://app.example.org")
    return letters.write(mail, Content(to, values), message_id=ID, created_at=WHEN)


def as_read(letter: Letter) -> EmailMessage:
    message = message_from_bytes(letter.message.as_bytes(), EmailMessage, policy=SMTP)
    assert isinstance(message, EmailMessage)
    return message


def text(letter: Letter) -> str:
    return body(as_read(letter), "plain")


def html(letter: Letter) -> str:
    return body(as_read(letter), "html")


@pytest.mark.parametrize("mail", Mail)
def test_both_bodies_of_every_mail_contain_all_its_values(mail: Mail) -> None:
    letter = write(mail)
    for name in mail.takes:
        assert VALUES[name] in text(letter)
        assert VALUES[name] in html(letter)
    for content in (text(letter), html(letter), letter.message["Subject"]):
        assert "$" not in content
    assert "Example" in letter.message["Subject"]


@pytest.mark.parametrize("mail", Mail)
def test_every_letter_explains_what_to_do_if_the_recipient_did_not_act(mail: Mail) -> None:
    for content in (text(write(mail)), html(write(mail))):
        assert "If it was not you" in content or "If you did not" in content


@pytest.mark.parametrize("mail", PAGES)
def test_tokens_are_in_the_fragment_of_a_link_and_alone_on_a_line(mail: Mail) -> None:
    letter = write(mail)
    link = f"https://app.example.org/{PAGES[mail]}#token={TOKEN}"
    assert f'href="{link}"' in html(letter)
    lines = [line.strip() for line in text(letter).splitlines()]
    assert link in lines
    assert TOKEN in lines


@pytest.mark.parametrize("name", ["Ada", "Ådå"])
def test_the_token_is_found_in_the_bytes_of_the_message(name: str) -> None:
    assert f"\r\n    {TOKEN}\r\n".encode() in write(Mail.VERIFY_EMAIL, display_name=name).message.as_bytes()


def test_mails_with_tokens_are_those_that_have_a_page() -> None:
    assert {mail for mail in Mail if "token" in mail.takes} == set(PAGES)


def test_letters_state_the_lifetime_of_their_token() -> None:
    assert account_tokens.VERIFY_EMAIL.lifetime == account_tokens.CHANGE_EMAIL.lifetime == timedelta(hours=24)
    assert account_tokens.RESET_PASSWORD.lifetime == timedelta(hours=1)
    assert timedelta(days=7) == invitations.LIFETIME
    lifetimes = {
        Mail.VERIFY_EMAIL: "24 hours",
        Mail.CHANGE_EMAIL: "24 hours",
        Mail.RESET_PASSWORD: "one hour",
        Mail.INVITATION: "7 days",
    }
    assert lifetimes.keys() == PAGES.keys()
    for mail, expected in lifetimes.items():
        for content in (text(write(mail)), html(write(mail))):
            assert f"within {expected}" in " ".join(content.split())


def test_a_letter_expires_with_its_token() -> None:
    assert lifetime("reset_password") == timedelta(hours=1)
    assert lifetime("verify_email") == lifetime("change_email") == timedelta(hours=24)
    assert lifetime("password_changed") == lifetime("of a later release") == timedelta(days=3)


def test_headers_have_sender_date_id_and_mark_automatic_mail() -> None:
    message = as_read(write(Mail.VERIFY_EMAIL))
    assert message["From"] == "Example <no@example.org>"
    assert message["To"] == "ada@example.com"
    assert message["Date"].datetime == WHEN
    assert message["Message-ID"] == f"<{ID}@example.org>"
    assert message["Auto-Submitted"] == "auto-generated"
    assert message.get_content_type() == "multipart/alternative"
    assert [part.get_content_type() for part in message.iter_parts()] == ["text/plain", "text/html"]
    assert {part.get_content_charset() for part in message.iter_parts()} == {"utf-8"}


def test_names_in_any_script_are_unchanged() -> None:
    letter = write(Mail.VERIFY_EMAIL, display_name="Дарья Ådå 🦊", mail_from="Bücher <no@bücher.example>")
    assert "Hello Дарья Ådå 🦊," in text(letter)
    assert "Hello Дарья Ådå 🦊," in html(letter)
    assert as_read(letter)["From"] == "Bücher <no@xn--bcher-kva.example>"
    assert as_read(letter)["Subject"].endswith("for Bücher")
    assert letter.message.as_bytes().isascii()


def test_domains_become_ascii() -> None:
    letter = write(Mail.ACCOUNT_EXISTS, to="ada@bücher.example")
    assert letter.recipient == "ada@xn--bcher-kva.example"


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        ("straße.de", "xn--strae-oqa.de"),
        ("Faß.example", "xn--fa-hia.example"),
        ("βόλος.com", "xn--nxasmm1c.com"),
        ("ab--cd.example", "ab--cd.example"),
        ("under_score.example", "under_score.example"),
    ],
)
def test_domains_are_encoded_by_idna_2008(domain: str, expected: str) -> None:
    """IDNA 2003, of Python's codec, maps ß to ss and ς to σ: domains of other owners."""
    letter = write(Mail.ACCOUNT_EXISTS, to=f"ada@{domain}", mail_from=f"Example <no@{domain}>")
    assert letter.recipient == f"ada@{expected}"
    assert letter.sender == f"no@{expected}"
    assert as_read(letter)["From"] == f"Example <no@{expected}>"
    assert as_read(letter)["Message-ID"] == f"<{ID}@{expected}>"


def test_names_are_escaped_in_html() -> None:
    name = "<img src=x onerror=alert(1)>&\"'"
    assert "<img" not in html(write(Mail.VERIFY_EMAIL, display_name=name))
    assert "&lt;img src=x onerror=alert(1)&gt;&amp;&quot;&#x27;" in html(write(Mail.VERIFY_EMAIL, display_name=name))
    assert f"Hello {name}," in text(write(Mail.VERIFY_EMAIL, display_name=name))


@pytest.mark.parametrize("ending", ["\r\n", "\n", "\r", "\x0b", "\x0c", "\x85", "\u2028", "\u2029", "\x00"])
@pytest.mark.parametrize("value", ["display_name", "provider"])
def test_names_cannot_add_a_header(value: str, ending: str) -> None:
    letter = write(Mail.PROVIDER_LINKED, **{value: f"Ada{ending}Bcc; eve{ending}{ending}<b>Hello"})
    message = as_read(letter)
    assert "Bcc" not in message
    assert set(message.keys()) == set(as_read(write(Mail.PROVIDER_LINKED)).keys())
    assert "AdaBcc; eve<b>Hello" in text(letter)
    assert len(text(letter).splitlines()) == len(text(write(Mail.PROVIDER_LINKED)).splitlines())


@pytest.mark.parametrize("to", ["ada@example.com\r\nBcc: eve@example.com", "ada\n@example.com", "ada@example.com\n"])
def test_an_address_with_a_line_break_is_refused(to: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        write(Mail.VERIFY_EMAIL, to=to)


def test_a_name_with_template_variables_is_not_expanded() -> None:
    assert "Hello $token ${app_url} %s {0}," in text(write(Mail.VERIFY_EMAIL, display_name="$token ${app_url} %s {0}"))


def test_a_name_cannot_reverse_the_following_text() -> None:
    assert "Hello adAmoc," in text(write(Mail.VERIFY_EMAIL, display_name="\u202eadA\u2066moc"))


@pytest.mark.parametrize(
    "name",
    ["you won, see http://evil.example", "evil.example/win", "Win at evil.example", "a@evil.example", "evil。com", ""],
)
def test_a_display_name_that_looks_like_a_link_is_replaced(name: str) -> None:
    letter = write(Mail.VERIFY_EMAIL, display_name=name)
    assert "Hello there," in text(letter)
    assert "Hello there," in html(letter)
    assert "evil" not in str(letter.message)


@pytest.mark.parametrize(
    ("value", "instead"), [("inviter", "A member invites you"), ("organization", "join an organization at")]
)
def test_an_inviter_or_organization_that_looks_like_a_link_is_replaced(value: str, instead: str) -> None:
    letter = write(Mail.INVITATION, **{value: "Win at evil.example"})
    assert instead in text(letter)
    assert instead in html(letter)
    assert "evil" not in str(letter.message)


@pytest.mark.parametrize("name", ["J. R. R. Tolkien", "J.R.R. Tolkien", "Dr. No", "O'Brien-Smith, jr."])
def test_names_with_dots_are_kept(name: str) -> None:
    assert f"Hello {name}," in text(write(Mail.VERIFY_EMAIL, display_name=name))


def spoiled(folder: Path, file: str, content: str | None) -> Path:
    shutil.copytree(TEMPLATES, folder / "templates")
    target = folder / "templates" / file
    target.unlink() if content is None else target.write_text(content)
    return folder / "templates"


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("verify_email.txt", None),
        ("verify_email.html", None),
        ("layout.html", None),
        ("verify_email.txt", "Hello $display_name, $link $token"),
        ("verify_email.txt", "Subject: $device_name\n\n$display_name $link $token"),
        ("verify_email.txt", "Subject: Hello\n\n$display_name $link"),
        ("verify_email.txt", "Subject: Hello\n\n$display_name $link $token $peer"),
        ("verify_email.html", "$display_name $token"),
        ("verify_email.html", "$display_name $link $token $ 5"),
        ("password_changed.html", "$display_name $link"),
    ],
)
def test_a_missing_template_or_one_with_other_variables_is_refused_at_start(
    tmp_path: Path, file: str, content: str | None
) -> None:
    templates = spoiled(tmp_path, file, content)
    with pytest.raises(TemplateError, match=r"template|\.txt|\.html"):
        Letters(mail_from="no@example.org", app_url="https://app.example.org", templates=templates)
