"""A peer: the asyncio client of grpcio. Arguments: the address, and the names of the cases to run."""

import asyncio
import json
import sys
from typing import Any

import grpc
from grpc.aio import EOF

MIB = 1024 * 1024
SIZES = (27_182, 8, 1_828, 45_904)


class Cases:
    def __init__(self, channel: Any) -> None:
        self.channel = channel

    def call(
        self, kind: Any, method: Any, *requests: Any, timeout: Any = 10, service: Any = "peers.Probe", **options: Any
    ) -> Any:
        return getattr(self.channel, kind)(f"/{service}/{method}")(*requests, timeout=timeout, **options)

    def unary(self, method: Any, request: Any = b"", **options: Any) -> Any:
        return self.call("unary_unary", method, request, **options)

    async def empty_unary(self) -> Any:
        return len(await self.unary("Unary"))

    async def large_unary(self) -> Any:
        return len(await self.unary("Unary", bytes(MIB)))

    async def compressed(self, compression: Any) -> Any:
        call = self.unary("Unary", b"x" * 100_000, compression=compression)
        return [len(await call), (await call.trailing_metadata())["encoding"]]

    async def client_compressed_unary_gzip(self) -> Any:
        return await self.compressed(grpc.Compression.Gzip)

    async def client_compressed_unary_deflate(self) -> Any:
        return await self.compressed(grpc.Compression.Deflate)

    async def server_compressed_unary(self) -> Any:
        return len(await self.unary("CompressedUnary", b"x" * 100_000))

    async def server_compressed_streaming(self) -> Any:
        call = self.call("unary_stream", "CompressedRepeat", b"x" * 100_000)
        return [len(response) async for response in call]

    async def client_streaming(self) -> Any:
        return (await self.call("stream_unary", "Join", iter([b"a", b"b", b"", b"c"]))).decode()

    async def server_streaming(self) -> Any:
        return [response.decode() async for response in self.call("unary_stream", "Repeat", b"a")]

    async def ping_pong(self) -> Any:
        call = self.call("stream_stream", "Echo")
        sizes = []
        for size in SIZES:
            await call.write(bytes(size))
            sizes.append(len(await call.read()))
        await call.done_writing()
        assert await call.read() is EOF
        return sizes

    async def empty_stream(self) -> Any:
        return [response async for response in self.call("stream_stream", "Echo", iter([]))]

    async def status_code_and_message(self) -> Any:
        request = b"2 test status message"
        stream = self.call("stream_stream", "Fail", iter([request]))
        return [await failure(self.unary("Fail", request)), await failure(stream.read())]

    async def special_status_message(self) -> Any:
        return await failure(self.unary("Fail", b"2 special"))

    async def unimplemented_method(self) -> Any:
        return (await failure(self.unary("Missing")))[0]

    async def unimplemented_service(self) -> Any:
        return (await failure(self.unary("Unary", service="peers.Missing")))[0]

    async def cancel_after_begin(self) -> Any:
        call = self.unary("Wait")
        await self.unary("Begun")
        call.cancel()
        await self.unary("Cancelled")
        return (await call.code()).value[0]

    async def cancel_after_first_response(self) -> Any:
        call = self.call("stream_stream", "Hold")
        await call.write(b"a")
        first = (await call.read()).decode()
        await self.unary("Begun")
        call.cancel()
        await self.unary("Cancelled")
        return [first, (await call.code()).value[0]]

    async def timeout_on_sleeping_server(self) -> Any:
        code = (await failure(self.unary("Wait", timeout=0.05)))[0]
        await self.unary("Begun")
        await self.unary("Cancelled")
        return code

    async def custom_metadata(self) -> Any:
        call = self.unary("Unary", metadata=(("x-text", "some text"), ("x-binary-bin", b"\0\xff\xab")))
        trailers = await call.trailing_metadata()
        return [trailers["x-text"], trailers["x-binary-bin"].hex()]

    async def largest_message(self) -> Any:
        return len(await self.unary("Unary", bytes(4 * MIB - 1)))

    async def too_large_message(self) -> Any:
        return (await failure(self.unary("Unary", bytes(4 * MIB + 1))))[0]

    async def deadline_propagation(self) -> Any:
        return (await self.unary("SecondsLeft", timeout=20)).decode()


async def failure(call: Any) -> Any:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return [error.code().value[0], error.details()]
    return [0, ""]


async def main() -> None:
    address, *names = sys.argv[1:]
    async with grpc.aio.insecure_channel(address) as channel:
        cases = Cases(channel)
        for name in names:
            print(json.dumps({"case": name, "result": await getattr(cases, name)()}), flush=True)


asyncio.run(main())
