class StartupError(Exception):
    """Accord cannot start, or a command cannot run. The message says why and what to do; it is printed without a traceback."""

    exit_code = 1
