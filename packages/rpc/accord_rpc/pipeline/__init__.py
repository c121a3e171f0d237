"""What stands between the wire and a handler: one chain of interceptors for each method, put together at start."""

from accord_rpc.pipeline.chain import Pipeline

__all__ = ["Pipeline"]
