"""grpc.aio alone, on uvloop: `python -m benchmarks.bare PORT`. The cost of Accord's pipeline is the
difference to it."""

import sys

import grpc
import uvloop

from accord.tasks.v1.tasks_pb2 import GetTaskRequest, GetTaskResponse, Task
from accord.tasks.v1.tasks_pb2_grpc import TaskServiceServicer, add_TaskServiceServicer_to_server
from benchmarks.calls import DESCRIPTION, TITLE

ANSWER = GetTaskResponse(task=Task(title=TITLE, description=DESCRIPTION))


class Bare(TaskServiceServicer):
    async def GetTask(  # noqa: N802 — named by the contract
        self, request: GetTaskRequest, context: "grpc.aio.ServicerContext[GetTaskRequest, GetTaskResponse]"
    ) -> GetTaskResponse:
        return ANSWER


async def serve(port: int) -> None:
    server = grpc.aio.server()
    add_TaskServiceServicer_to_server(Bare(), server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
