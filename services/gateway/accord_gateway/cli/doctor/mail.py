"""Checks that the mail server accepts a connection and the log-in. Sends nothing."""

from collections.abc import Iterator

from accord_gateway.cli.doctor.finding import Finding
from accord_gateway.settings import Settings


def findings(settings: Settings) -> Iterator[Finding]:
    from accord_gateway import event_loop  # these import the whole server
    from accord_gateway.mail.transport import Unreachable
    from accord_gateway.mail.wiring import smtp_transport

    transport = smtp_transport(settings)
    if transport is None:
        yield Finding(f"mail is printed, and kept in {settings.state_folder / 'mail'}")
        return
    server = f"mail server {transport.place}"
    try:
        event_loop.run(transport.check())
    except Unreachable as error:
        yield Finding(f"{server}: {error}", "Check that it runs there and accepts this machine, and check SMTP_URL.")
    else:
        yield Finding(f"{server} accepts mail from this gateway")
