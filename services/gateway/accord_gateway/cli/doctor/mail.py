"""Whether mail can be sent."""

from collections.abc import Iterator

from accord_gateway.cli.doctor.finding import Finding
from accord_gateway.settings import Settings


def findings(settings: Settings) -> Iterator[Finding]:
    from accord_gateway import event_loop  # these load everything that serves calls
    from accord_gateway.mail.transport import Unreachable
    from accord_gateway.mail.wiring import smtp_transport

    transport = smtp_transport(settings)
    if transport is None:
        yield Finding(f"mail is shown in the terminal and kept in {settings.state_folder / 'mail'}")
        return
    server = f"mail server {transport.place}"
    try:
        event_loop.run(transport.check())
    except Unreachable as fault:
        yield Finding(f"{server}: {fault}", "See that it runs there and lets this machine in, and check SMTP_URL.")
    else:
        yield Finding(f"{server} takes mail from us")
