from functools import cache

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge


class MailMetrics:
    """Use `mail_metrics()`: a registry accepts each name once."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.sent = Counter(
            "accord_mail_sent_total", "Messages accepted by the mail server.", ["template"], registry=registry
        )
        self.failed = Counter(
            "accord_mail_failed_total",
            "Failed attempts to send a message, by kind of failure.",
            ["template", "kind"],
            registry=registry,
        )
        self.waiting = Gauge(
            "accord_outbox_waiting",
            "Messages in the outbox that are not sent yet.",
            registry=registry,
            multiprocess_mode="livemostrecent",  # every process counts the same table
        )


@cache
def mail_metrics(registry: CollectorRegistry = REGISTRY) -> MailMetrics:
    return MailMetrics(registry)
