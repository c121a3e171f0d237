// A peer: @grpc/grpc-js. Arguments: the address, and the names of the cases to run.
import { once } from "node:events";
import grpc from "@grpc/grpc-js";

const [address, ...names] = process.argv.slice(2);
const MIB = 1024 * 1024;
const same = (bytes) => bytes;
const EMPTY = Buffer.alloc(0);

function method(path, requestStream, responseStream) {
  return { path, requestStream, responseStream, requestSerialize: same, requestDeserialize: same, responseSerialize: same, responseDeserialize: same };
}

const service = {};
for (const name of ["Unary", "CompressedUnary", "Fail", "Wait", "Begun", "Cancelled", "SecondsLeft", "Missing"]) {
  service[name] = method(`/peers.Probe/${name}`, false, false);
}
service.MissingService = method("/peers.Missing/Unary", false, false);
service.Join = method("/peers.Probe/Join", true, false);
service.Repeat = method("/peers.Probe/Repeat", false, true);
service.CompressedRepeat = method("/peers.Probe/CompressedRepeat", false, true);
service.Echo = method("/peers.Probe/Echo", true, true);
service.Hold = method("/peers.Probe/Hold", true, true);
service.FailStream = method("/peers.Probe/Fail", true, true);

const Client = grpc.makeGenericClientConstructor(service, "Probe");
const client = new Client(address, grpc.credentials.createInsecure());
const options = (seconds = 10) => ({ deadline: Date.now() + seconds * 1000 });

// The response, the code, the text and the trailers of a call.
function unary(name, request = EMPTY, { metadata = new grpc.Metadata(), seconds = 10, from = client } = {}) {
  return new Promise((resolve) => {
    const found = {};
    const call = from[name](request, metadata, options(seconds), (error, response) => Object.assign(found, { response, code: error?.code ?? 0, text: error?.details ?? "" }));
    call.on("status", (status) => setImmediate(() => resolve({ ...found, trailers: status.metadata })));
  });
}

async function succeeded(name) {
  const { code, text } = await unary(name);
  if (code !== 0) throw new Error(text);
}

async function collected(call) {
  const found = [];
  for await (const response of call) found.push(response);
  return found;
}

const failed = async (call) => collected(call).then(() => [0, ""], (error) => [error.code, error.details]);

async function compressed(algorithm) {
  const from = new Client(address, grpc.credentials.createInsecure(), { "grpc.default_compression_algorithm": algorithm });
  const { response, trailers } = await unary("Unary", Buffer.alloc(100_000, "x"), { from });
  from.close();
  return [response.length, trailers.get("encoding")[0]];
}

const cases = {
  empty_unary: async () => (await unary("Unary")).response.length,
  large_unary: async () => (await unary("Unary", Buffer.alloc(MIB))).response.length,
  client_compressed_unary_gzip: () => compressed(grpc.compressionAlgorithms.gzip),
  client_compressed_unary_deflate: () => compressed(grpc.compressionAlgorithms.deflate),
  server_compressed_unary: async () => (await unary("CompressedUnary", Buffer.alloc(100_000, "x"))).response.length,
  server_compressed_streaming: async () =>
    (await collected(client.CompressedRepeat(Buffer.alloc(100_000, "x"), options()))).map((response) => response.length),
  client_streaming: () =>
    new Promise((resolve, reject) => {
      const call = client.Join(options(), (error, response) => (error ? reject(error) : resolve(response.toString())));
      for (const text of ["a", "b", "", "c"]) call.write(Buffer.from(text));
      call.end();
    }),
  server_streaming: async () => (await collected(client.Repeat(Buffer.from("a"), options()))).map(String),
  ping_pong: async () => {
    const call = client.Echo(options());
    const sizes = [];
    for (const size of [27182, 8, 1828, 45904]) {
      call.write(Buffer.alloc(size));
      sizes.push((await once(call, "data"))[0].length);
    }
    call.end();
    return [...sizes, ...(await collected(call))];
  },
  empty_stream: () => {
    const call = client.Echo(options());
    call.end();
    return collected(call);
  },
  status_code_and_message: async () => {
    const request = Buffer.from("2 test status message");
    const { code, text } = await unary("Fail", request);
    const call = client.FailStream(options());
    call.end(request);
    return [[code, text], await failed(call)];
  },
  special_status_message: async () => {
    const { code, text } = await unary("Fail", Buffer.from("2 special"));
    return [code, text];
  },
  unimplemented_method: async () => (await unary("Missing")).code,
  unimplemented_service: async () => (await unary("MissingService")).code,
  cancel_after_begin: async () => {
    let call;
    const code = new Promise((resolve) => (call = client.Wait(EMPTY, options(), (error) => resolve(error?.code))));
    await succeeded("Begun");
    call.cancel();
    await succeeded("Cancelled");
    return code;
  },
  cancel_after_first_response: async () => {
    const call = client.Hold(options());
    call.write(Buffer.from("a"));
    const first = String((await once(call, "data"))[0]);
    await succeeded("Begun");
    const ended = once(call, "error");
    call.cancel();
    await succeeded("Cancelled");
    return [first, (await ended)[0].code];
  },
  timeout_on_sleeping_server: async () => {
    const { code } = await unary("Wait", EMPTY, { seconds: 0.05 });
    await succeeded("Begun");
    await succeeded("Cancelled");
    return code;
  },
  custom_metadata: async () => {
    const metadata = new grpc.Metadata();
    metadata.set("x-text", "some text");
    metadata.set("x-binary-bin", Buffer.from("00ffab", "hex"));
    const { trailers } = await unary("Unary", EMPTY, { metadata });
    return [trailers.get("x-text")[0], trailers.get("x-binary-bin")[0].toString("hex")];
  },
  largest_message: async () => (await unary("Unary", Buffer.alloc(4 * MIB - 1))).response.length,
  too_large_message: async () => (await unary("Unary", Buffer.alloc(4 * MIB + 1))).code,
  deadline_propagation: async () => String((await unary("SecondsLeft", EMPTY, { seconds: 20 })).response),
};

for (const name of names) console.log(JSON.stringify({ case: name, result: await cases[name]() }));
client.close();
