"""The dependencies and shared steps of AccountService's methods."""

from typing import ClassVar, Final

from accord.accounts.v1 import accounts_pb2 as pb
from accord.accounts.v1.accounts_pb2 import Account as AccountMessage
from accord.accounts.v1.accounts_pb2_grpc import AccountServiceServicer
from accord_api import account_tokens
from accord_api.account_tokens import Kind
from accord_api.dependencies import Dependencies
from accord_api.outbox import Mail
from accord_db.engine.database import Transaction
from accord_db.engine.ids import uuid7
from accord_db.schema import Account, Session
from accord_rpc.messages import MessageMapper

to_account: Final = MessageMapper(AccountMessage)


class AccountParts(AccountServiceServicer):
    resources: ClassVar = {pb.Account: Account, pb.Session: Session}

    def __init__(self, dependencies: Dependencies) -> None:
        self._db = dependencies.database
        self._sessions = dependencies.sessions
        self._passwords = dependencies.passwords
        self._second_factors = dependencies.second_factors
        self._sign_ins = dependencies.sign_ins
        self._outbox = dependencies.outbox
        self._verified_email_required = dependencies.rules.verified_email_required

    async def _mail_token(self, tx: Transaction, kind: Kind, mail: Mail, account: Account | None, *, to: str) -> None:
        """Without an account it does the same work, and neither issues a token nor sends mail."""
        account_id, name = (account.id, account.display_name) if account else (uuid7(), "")
        token = await account_tokens.issue(tx, kind, account_id=account_id, email=to)
        await self._outbox.post(tx, mail, to=to if account else None, display_name=name, token=token)
