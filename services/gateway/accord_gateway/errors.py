class StartupError(Exception):
    """Accord cannot start, or a command cannot be carried out. The message says why and what to do; it is shown as it
    is, without a traceback."""

    exit_code = 1
