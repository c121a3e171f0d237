"""Creates a task, lists the open tasks and completes the new one.

    ACCORD_API_KEY=ack_… python tasks.py gateway.example.com:443 "Water the plants"
    ACCORD_SESSION_TOKEN=acs_… python tasks.py --plain-text 127.0.0.1:50051 "Water the plants"

Requires only the packages accord-client and accord-contract.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import accord_client
from accord.tasks.v1.tasks_pb2 import CreateTaskRequest, ListTasksRequest, Task, UpdateTaskRequest
from accord.tasks.v1.tasks_pb2_grpc import TaskServiceStub
from accord_client import ApiKey, CallFailed, Credentials, SessionToken, Tls
from accord_client.errors import EtagMismatch, InvalidMessage, Unauthenticated


def main() -> int:
    options = arguments()
    tls = None if options.plain_text else Tls(authorities=options.authorities)
    try:
        with accord_client.open_channel(options.address, credentials=credentials(), tls=tls) as channel:
            run(TaskServiceStub(channel), options.title)
    except InvalidMessage as failed:
        for violation in failed.violations:
            print(f"{violation.field} {violation.description}", file=sys.stderr)
        return 2
    except Unauthenticated as failed:
        print(f"{failed.message} ({failed.reason})", file=sys.stderr)
        return 3
    except CallFailed as failed:
        print(failed, file=sys.stderr)
        return 1
    return 0


def run(tasks: TaskServiceStub, title: str) -> None:
    # The client sends a request_id, so retries create one task.
    created = tasks.CreateTask(CreateTaskRequest(title=title)).task
    for task in open_tasks(tasks):
        print(f"open: {task.title}")
    try:
        # The client does not retry updates: the etag detects a change in between.
        tasks.UpdateTask(UpdateTaskRequest(task=Task(id=created.id, etag=created.etag, completed=True)))
    except EtagMismatch:
        print(f"changed by another client: {title}")
    else:
        print(f"done: {title}")


def open_tasks(tasks: TaskServiceStub) -> Iterator[Task]:
    request = ListTasksRequest(completed=False, order_by="created_at")
    while True:
        page = tasks.ListTasks(request)
        yield from page.tasks
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


def credentials() -> Credentials:
    """From the environment: other users of the machine can read command-line arguments."""
    if key := os.environ.get("ACCORD_API_KEY"):
        return ApiKey(key)
    if token := os.environ.get("ACCORD_SESSION_TOKEN"):
        return SessionToken(token)
    sys.exit("Set ACCORD_API_KEY or ACCORD_SESSION_TOKEN.")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Create a task, list the open ones, complete it.")
    parser.add_argument("address", help="host:port of the gateway")
    parser.add_argument("title", help="title of the task")
    parser.add_argument("--plain-text", action="store_true", help="no TLS, for a gateway on this machine")
    parser.add_argument("--authorities", type=Path, metavar="FILE", help="PEM file of the certificate authority")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
