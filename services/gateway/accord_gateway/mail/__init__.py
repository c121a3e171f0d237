"""Mail: taken from the outbox and handed to a mail server; in development, shown and kept as files."""
