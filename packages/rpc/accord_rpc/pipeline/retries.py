"""Runs a handler again when its transaction lost a conflict."""

from grpc_interceptor.server import AsyncServerInterceptor

from accord_db.engine.errors import Conflict
from accord_db.engine.retry import retry_conflicts
from accord_rpc.call import Context
from accord_rpc.interceptor import Next


class RetryInterceptor(AsyncServerInterceptor):
    """For unary methods: what the handler did before the conflict was rolled back with its transaction."""

    async def intercept(
        self,
        method: Next,
        request_or_iterator: object,
        context: Context,
        method_name: str,
    ) -> bytes | None:
        try:
            return await method(request_or_iterator, context)
        except Conflict:
            return await retry_conflicts(lambda: method(request_or_iterator, context))
