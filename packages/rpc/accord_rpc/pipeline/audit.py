"""Writes an audit event for each call of the methods whose policy has `audit`."""

from typing import Final

import grpc
from grpc_interceptor.server import AsyncServerInterceptor

from accord.policy.v1.policy_pb2 import Credential
from accord_db.engine.database import Database, Executor
from accord_db.engine.ids import uuid7_at
from accord_db.queries import audit
from accord_rpc.call import Context, call
from accord_rpc.interceptor import Next
from accord_rpc.policy import Method
from accord_rpc.status import status_of

# `session` for CREDENTIAL_SESSION.
_KINDS: Final = {kind: name.removeprefix("CREDENTIAL_").lower() for name, kind in Credential.items()}


class AuditInterceptor(AsyncServerInterceptor):
    """The event of a successful call commits with the call's transaction; that of a failed call is written after the
    roll-back. A status that decides nothing, such as UNAVAILABLE, writes no event."""

    def __init__(self, method: Method, database: Database) -> None:
        self._path = method.path
        self._declared = method.policy.errors
        self._database = database

    async def intercept(
        self,
        method: Next,
        request_or_iterator: object,
        context: Context,
        method_name: str,
    ) -> bytes | None:
        try:
            async with self._database.call_transaction():
                response = await method(request_or_iterator, context)
                async with self._database.transaction() as tx:
                    await self._insert(tx, grpc.StatusCode.OK, None)
                return response
        except Exception as raised:
            failed = status_of(raised, self._declared)
            if not failed.undecided:
                await self._insert(self._database, failed.code, failed.name)
            raise

    async def _insert(self, db: Executor, code: grpc.StatusCode, reason: str | None) -> None:
        current, who = call(), call().caller
        notes = current.notes
        await audit.insert_event(
            db,
            event_id=uuid7_at(self._database.clock.now()),
            account_id=notes.account_id or (who.account_id if who else None),
            organization_id=who.organization_id if who else None,
            credential=_KINDS[who.credential] if who else None,
            credential_id=who.credential_id if who else None,
            impersonator_id=who.impersonator_id if who else None,
            service_account_id=who.service_account_id if who else None,
            method=self._path,
            target=notes.target,
            stated_reason=notes.stated_reason,
            peer=current.peer,
            user_agent=current.user_agent,
            code=code.name,
            reason=reason,
            request_id=current.request_id,
        )
