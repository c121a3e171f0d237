"""Builds the sender and its transport from the settings."""

from accord_db.queries.outbox import OUTBOX_CHANNEL
from accord_gateway.mail.files import FilesTransport
from accord_gateway.mail.letters import Letters, address
from accord_gateway.mail.metrics import mail_metrics
from accord_gateway.mail.sender import Sender
from accord_gateway.mail.smtp import SmtpServer, SmtpTransport
from accord_gateway.secret_key import keyring
from accord_gateway.server.gateway import Runtime
from accord_gateway.settings import Settings


def mail_sender(runtime: Runtime) -> Sender:
    """Call before the listener starts: the sender subscribes to it. Raises TemplateError."""
    settings = runtime.settings
    sender = Sender(
        runtime.database,
        keyring(settings, runtime.secret_key),
        Letters(mail_from=settings.mail_from, app_url=settings.app_url),
        smtp_transport(settings) or FilesTransport(settings.state_folder / "mail"),
        mail_metrics(),
    )
    runtime.listener.listen(OUTBOX_CHANNEL, sender.wake)
    return sender


def smtp_transport(settings: Settings) -> SmtpTransport | None:
    """None without SMTP_URL."""
    if settings.smtp_url is None:
        return None
    server = SmtpServer.of(settings.smtp_url.get_secret_value(), plaintext_on_loopback=not settings.production)
    return SmtpTransport(server, ehlo_name=address(settings.mail_from).domain)
