"""The Connect protocol (https://connectrpc.com/docs/protocol): unary calls and streams, in JSON and binary."""
