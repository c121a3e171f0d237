"""TCP ports for servers that cannot choose one themselves."""

import os
import random
import socket
from contextlib import suppress
from itertools import cycle

# Below 32768, where the kernel takes the ports of outgoing connections and of servers that bind port 0. Each pytest
# worker has ports of its own, in random order for the sake of other runs on this machine.
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_OWN = range(10_000, 32_000)[_WORKER % 100 :: 100]
_PORTS = cycle(random.sample(_OWN, len(_OWN)))


def free_port() -> int:
    """A port of 127.0.0.1 on which nothing listens. The next call returns another one."""
    while True:
        port = next(_PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
