"""`accord doctor`: says what is wrong with installation, settings, ports, mail and database, and what to do about it."""

from collections.abc import Iterator

from accord_gateway.cli.doctor import database, installation, listening, mail
from accord_gateway.cli.doctor.finding import Finding
from accord_gateway.settings import SettingsError, read_settings


def examine() -> Iterator[Finding]:
    """Every finding as it is made."""
    yield from installation.findings()
    try:
        settings = read_settings()
    except SettingsError as error:
        for name, fault in error.faults.items():
            yield Finding(f"{name} {fault}", "Correct it in the environment or in .env; .env.example explains it.")
        yield Finding("ports, mail and database were not looked at", "Correct the settings first.")
        return
    yield Finding(f"settings, for {settings.accord_env}")
    yield from listening.findings(settings)
    yield from mail.findings(settings)
    yield from database.findings(settings)
