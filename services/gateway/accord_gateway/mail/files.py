"""Development without a mail server: letters are printed to the terminal and kept as files."""

import os
import sys
from pathlib import Path

from accord_gateway.mail.letters import Letter
from accord_gateway.mail.transport import Unreachable


class FilesTransport:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def send(self, letter: Letter) -> None:
        try:
            file = self._write(letter)
        except OSError as error:
            raise Unreachable(f"cannot write to {self._folder}: {error.strerror}") from None
        sys.stderr.write(_preview(letter, file))

    async def close(self) -> None:
        """Holds nothing open."""

    def _write(self, letter: Letter) -> Path:
        """Readable by the owner only: the tokens in a letter give access to accounts."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = self._folder / f"{letter.message['Message-ID'].strip('<>').partition('@')[0]}.eml"
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as kept:
            kept.write(letter.message.as_bytes())
        return file


def _preview(letter: Letter, file: Path) -> str:
    body = letter.message.get_body(("plain",))
    assert body is not None
    text = "".join(f"    {line}".rstrip() + "\n" for line in body.get_content().splitlines())
    return f"\nMail to {letter.recipient}, kept in {file}: {letter.message['Subject']}\n\n{text}\n"
