"""Why nothing was generated."""

from collections.abc import Iterable


class Refused(Exception):
    """The request cannot be carried out. Each fault is a sentence with its remedy."""

    def __init__(self, faults: Iterable[str]) -> None:
        self.faults = list(faults)
        super().__init__("\n".join(self.faults))


class NotRecognised(Exception):
    """A file has another form than the generator expects, so it changes nothing. The message names the file and the place."""
