from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """A result of a check. It is a problem if it has a remedy."""

    what: str
    remedy: str = ""

    @property
    def is_problem(self) -> bool:
        return bool(self.remedy)

    def __str__(self) -> str:
        return f"✗ {self.what}\n    {self.remedy}" if self.is_problem else f"✓ {self.what}"
