"""`accord doctor` checks installation, settings, ports, mail and database, and reports a remedy for each problem."""

from collections.abc import Iterator

from accord_gateway.cli.doctor import database, installation, listening, mail
from accord_gateway.cli.doctor.finding import Finding
from accord_gateway.settings import SettingsError, read_settings


def diagnose() -> Iterator[Finding]:
    """Yields each finding as soon as it is known. Wrong settings end the checks, which depend on them."""
    yield from installation.findings()
    try:
        settings = read_settings()
    except SettingsError as error:
        for name, problem in error.problems.items():
            yield Finding(f"{name} {problem}", "Correct it in the environment or in .env; .env.example explains it.")
        yield Finding("ports, mail and database are not checked", "Correct the settings first.")
        return
    yield Finding(f"settings, for {settings.accord_env}")
    yield from listening.findings(settings)
    yield from mail.findings(settings)
    yield from database.findings(settings)
