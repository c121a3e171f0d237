"""The stages between the wire and a handler: one chain for each method, built at start."""

from accord_rpc.pipeline.chain import Pipeline, Routes

__all__ = ["Pipeline", "Routes"]
