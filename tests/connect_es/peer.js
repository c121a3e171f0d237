// Calls every kind of method of faces.v1.FaceService through every transport of connect-es, and prints what came back as JSON.
// Arguments: the address of the server, the credential, and the descriptors of the service in base64.
import { createFileRegistry, fromBinary } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import * as node from "@connectrpc/connect-node";
import * as web from "@connectrpc/connect-web";

const [baseUrl, authorization, descriptors] = process.argv.slice(2);
const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, Buffer.from(descriptors, "base64")));
const service = registry.getService("faces.v1.FaceService");
const options = { headers: { authorization }, timeoutMs: 5000 };

const transports = {
  "node connect json 1": node.createConnectTransport({ baseUrl, httpVersion: "1.1", useBinaryFormat: false }),
  "node connect json 2": node.createConnectTransport({ baseUrl, httpVersion: "2", useBinaryFormat: false, useHttpGet: true }),
  "node connect binary 2": node.createConnectTransport({ baseUrl, httpVersion: "2", useBinaryFormat: true, sendCompression: node.compressionGzip, compressMinBytes: 0 }),
  "node grpc-web 1": node.createGrpcWebTransport({ baseUrl, httpVersion: "1.1" }),
  "node grpc-web 2": node.createGrpcWebTransport({ baseUrl, httpVersion: "2" }),
  "node grpc 2": node.createGrpcTransport({ baseUrl }),
  "web connect json": web.createConnectTransport({ baseUrl }),
  "web connect binary, GET": web.createConnectTransport({ baseUrl, useBinaryFormat: true, useHttpGet: true }),
  "web grpc-web": web.createGrpcWebTransport({ baseUrl }),
};

async function* texts() {
  for (const text of ["a", "b", "c"]) yield { text };
}

async function collected(stream, found = []) {
  for await (const response of stream) found.push(response.text);
  return found;
}

async function failure(call) {
  try {
    await call;
    return "no error";
  } catch (caught) {
    const error = ConnectError.from(caught);
    return { code: Code[error.code], message: error.rawMessage, details: error.details.map((detail) => detail.type ?? detail.desc?.typeName) };
  }
}

async function results(name, client) {
  const unary = await client.sendText({ text: "ü", number: 2n ** 62n }, options);
  const found = {
    unary: [unary.text, String(unary.number)],
    large: (await client.sendText({ text: "ab", act: "large" }, options)).text.length,
    safe: (await client.getText({ text: "a b+ü" }, options)).text,
    refused: await failure(client.sendText({ act: "refuse" }, options)),
    unauthenticated: await failure(client.sendText({})),
    late: (await failure(client.sendText({ act: "wait" }, { ...options, timeoutMs: 50 }))).code, // of the server or of the client itself
    serverStream: await collected(client.listTexts({ text: "a" }, options)),
    brokenStream: await failure(collected(client.listTexts({ act: "refuse" }, options))),
  };
  if (name.startsWith("node")) found.clientStream = (await client.joinTexts(texts(), options)).text;
  if (name.endsWith("2")) found.bidi = await collected(client.echoTexts(texts(), options));
  return found;
}

const all = {};
for (const [name, transport] of Object.entries(transports)) {
  try {
    all[name] = await results(name, createClient(service, transport));
  } catch (error) {
    all[name] = { failed: String(error?.stack ?? error) };
  }
}
console.log(JSON.stringify(all));
process.exit(0);
