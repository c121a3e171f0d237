"""A peer: grpcio. Arguments: the address, and the names of the cases to run."""

import json
import sys
from queue import Queue
from typing import Any

import grpc

MIB = 1024 * 1024
SIZES = (27_182, 8, 1_828, 45_904)


class Cases:
    def __init__(self, channel: Any) -> None:
        self.channel = channel

    def call(self, kind: Any, method: Any, request: Any, **options: Any) -> Any:
        service = options.pop("service", "peers.Probe")
        return getattr(self.channel, kind)(f"/{service}/{method}")(
            request, timeout=options.pop("timeout", 10), **options
        )

    def unary(self, method: Any, request: Any = b"", **options: Any) -> Any:
        return self.call("unary_unary", method, request, **options)

    def with_call(self, request: Any, **options: Any) -> Any:
        return self.channel.unary_unary("/peers.Probe/Unary").with_call(request, timeout=10, **options)

    def empty_unary(self) -> Any:
        return len(self.unary("Unary"))

    def large_unary(self) -> Any:
        return len(self.unary("Unary", bytes(MIB)))

    def compressed(self, compression: Any) -> Any:
        response, call = self.with_call(b"x" * 100_000, compression=compression)
        return [len(response), dict(call.trailing_metadata())["encoding"]]

    def client_compressed_unary_gzip(self) -> Any:
        return self.compressed(grpc.Compression.Gzip)

    def client_compressed_unary_deflate(self) -> Any:
        return self.compressed(grpc.Compression.Deflate)

    def server_compressed_unary(self) -> Any:
        return len(self.unary("CompressedUnary", b"x" * 100_000))

    def server_compressed_streaming(self) -> Any:
        return [len(response) for response in self.call("unary_stream", "CompressedRepeat", b"x" * 100_000)]

    def client_streaming(self) -> Any:
        return self.call("stream_unary", "Join", iter([b"a", b"b", b"", b"c"])).decode()

    def server_streaming(self) -> Any:
        return [response.decode() for response in self.call("unary_stream", "Repeat", b"a")]

    def ping_pong(self) -> Any:
        requests = Queue[Any]()
        responses = self.call("stream_stream", "Echo", iter(requests.get, None))
        sizes = []
        for size in SIZES:
            requests.put(bytes(size))
            sizes.append(len(next(responses)))
        requests.put(None)
        return sizes + [len(response) for response in responses]

    def empty_stream(self) -> Any:
        return list(self.call("stream_stream", "Echo", iter([])))

    def status_code_and_message(self) -> Any:
        request = b"2 test status message"
        return [
            failure(self.unary, "Fail", request),
            failure(lambda: list(self.call("stream_stream", "Fail", iter([request])))),
        ]

    def special_status_message(self) -> Any:
        return failure(self.unary, "Fail", b"2 special")

    def unimplemented_method(self) -> Any:
        return failure(self.unary, "Missing")[0]

    def unimplemented_service(self) -> Any:
        return failure(self.unary, "Unary", service="peers.Missing")[0]

    def cancel_after_begin(self) -> Any:
        call = self.channel.unary_unary("/peers.Probe/Wait").future(b"", timeout=10)
        self.unary("Begun")
        call.cancel()
        self.unary("Cancelled")
        return call.code().value[0]

    def cancel_after_first_response(self) -> Any:
        requests = Queue[Any]()
        requests.put(b"a")
        responses = self.call("stream_stream", "Hold", iter(requests.get, None))
        first = next(responses).decode()
        self.unary("Begun")
        responses.cancel()
        self.unary("Cancelled")
        requests.put(None)
        return [first, failure(next, responses)[0]]

    def timeout_on_sleeping_server(self) -> Any:
        code = failure(self.unary, "Wait", timeout=0.05)[0]
        self.unary("Begun")
        self.unary("Cancelled")
        return code

    def custom_metadata(self) -> Any:
        _, call = self.with_call(b"", metadata=(("x-text", "some text"), ("x-binary-bin", b"\0\xff\xab")))
        trailers = dict(call.trailing_metadata())
        return [trailers["x-text"], trailers["x-binary-bin"].hex()]

    def largest_message(self) -> Any:
        return len(self.unary("Unary", bytes(4 * MIB - 1)))

    def too_large_message(self) -> Any:
        return failure(self.unary, "Unary", bytes(4 * MIB + 1))[0]

    def deadline_propagation(self) -> Any:
        return self.unary("SecondsLeft", timeout=20).decode()


def failure(call: Any, *arguments: Any, **options: Any) -> Any:
    try:
        call(*arguments, **options)
    except grpc.RpcError as error:
        return [error.code().value[0], error.details()]
    return [0, ""]


def main() -> None:
    address, *names = sys.argv[1:]
    with grpc.insecure_channel(address) as channel:
        cases = Cases(channel)
        for name in names:
            print(json.dumps({"case": name, "result": getattr(cases, name)()}), flush=True)


main()
