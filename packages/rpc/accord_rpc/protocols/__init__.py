"""Turns HTTP exchanges into calls and their results back into bytes: gRPC, gRPC-Web, Connect and REST.

Holds no rule of access, validation, limits or errors: those are stages of the pipeline."""
