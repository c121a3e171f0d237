from functools import cache

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge


class MailMetrics:
    """What the sending of mail says of itself. Ask `mail_metrics()` for them: a registry takes each name once."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.sent = Counter(
            "accord_mail_sent_total", "Messages that a mail server has taken.", ["template"], registry=registry
        )
        self.failed = Counter(
            "accord_mail_failed_total",
            "Attempts to send a message that failed, by what became of it.",
            ["template", "kind"],
            registry=registry,
        )
        self.waiting = Gauge(
            "accord_outbox_waiting",
            "Messages that are to be sent.",
            registry=registry,
            multiprocess_mode="livemostrecent",  # all processes look at one table
        )


@cache
def mail_metrics(registry: CollectorRegistry = REGISTRY) -> MailMetrics:
    return MailMetrics(registry)
