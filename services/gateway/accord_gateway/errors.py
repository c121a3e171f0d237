class StartupError(Exception):
    """Accord cannot start, or a command cannot run. The message, printed without a traceback, states the cause and the remedy."""

    exit_code = 1
