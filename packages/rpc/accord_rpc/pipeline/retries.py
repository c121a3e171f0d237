"""A handler whose transaction lost against another one runs again, whole."""

from grpc_interceptor.server import AsyncServerInterceptor

from accord_db.engine.errors import Conflict
from accord_db.engine.retry import retry_conflicts
from accord_rpc.call import Context
from accord_rpc.interceptor import Next


class RetryInterceptor(AsyncServerInterceptor):
    """For methods of one request and one answer: what a handler did before a conflict was rolled back with it."""

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
