"""A client with the documented retry policy."""

import json
import threading

import grpc

from accord.tasks.v1.tasks_pb2 import ListTasksRequest
from accord.tasks.v1.tasks_pb2_grpc import TaskServiceStub
from tests.factories import Person

# From docs/operating.md.
SERVICE_CONFIG = {
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.5s",
                "maxBackoff": "5s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}


class RetryingCaller(threading.Thread):
    """Lists its tasks repeatedly, over its own connection."""

    def __init__(self, address: str, person: Person, *, pause: float = 0) -> None:
        """`pause`: seconds after each call."""
        super().__init__()
        self._pause = pause
        self._address = address
        self._person = person
        self.stopping = threading.Event()
        self.responses = 0
        self.errors: list[str] = []

    def run(self) -> None:
        options = [("grpc.service_config", json.dumps(SERVICE_CONFIG)), ("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(self._address, options) as channel:
            tasks = TaskServiceStub(channel)
            while not self.stopping.wait(self._pause):
                try:
                    tasks.ListTasks(ListTasksRequest(), metadata=self._person.headers, timeout=30)
                    self.responses += 1
                except grpc.RpcError as error:
                    self.errors.append(str(error))
