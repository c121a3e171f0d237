from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """What was looked at, and how it is. A remedy makes it a fault."""

    what: str
    remedy: str = ""

    @property
    def is_fault(self) -> bool:
        return bool(self.remedy)

    def __str__(self) -> str:
        return f"✗ {self.what}\n    {self.remedy}" if self.is_fault else f"✓ {self.what}"
