"""Mail: letters are read from the outbox and sent to a mail server. Development without one prints and keeps them as files."""
