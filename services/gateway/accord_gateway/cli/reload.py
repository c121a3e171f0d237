"""`accord reload`: the gateway of this folder takes up new code and settings."""

from accord_gateway.errors import StartupError
from accord_gateway.process.reloads import request_reload
from accord_gateway.settings import read_state_folder


def reload() -> float:
    """Returns how many seconds it took until the new workers served. Raises StartupError with the gateway's reason."""
    folder = read_state_folder()
    try:
        outcome = request_reload(folder)
    except OSError as error:
        raise StartupError(f"Cannot reach the gateway of {folder}: {error.strerror}.") from None
    if outcome is None:
        raise StartupError(f"No gateway runs with the state folder {folder}. Start it with `accord serve`.")
    if outcome["error"]:
        raise StartupError(f"The gateway continues with its former code and settings. {outcome['error']}")
    return outcome["seconds"]
