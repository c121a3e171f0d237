class MigrationError(Exception):
    """Says what is wrong, and what to do about it."""
