"""What the methods of AccountService are made of, and what more than one idea of them needs."""

from typing import Final

from accord.accounts.v1.accounts_pb2 import Account as AccountMessage
from accord.accounts.v1.accounts_pb2 import Session
from accord.accounts.v1.accounts_pb2_grpc import AccountServiceServicer
from accord_api import account_tokens
from accord_api.account_tokens import Kind
from accord_api.outbox import Mail, Outbox
from accord_api.sign_ins import SignIns
from accord_auth.passwords import Passwords
from accord_auth.second_factors import SecondFactors
from accord_auth.sessions import Sessions
from accord_db.engine.database import Database, Transaction
from accord_db.engine.ids import uuid7
from accord_db.schema import Account
from accord_rpc.errors import FieldViolation, invalid
from accord_rpc.messages import MessageMapper

to_account: Final = MessageMapper(AccountMessage)
to_session: Final = MessageMapper(Session)


class AccountParts(AccountServiceServicer):
    def __init__(
        self,
        database: Database,
        sessions: Sessions,
        passwords: Passwords,
        second_factors: SecondFactors,
        sign_ins: SignIns,
        outbox: Outbox,
        *,
        verified_email_required: bool,
    ) -> None:
        self._db = database
        self._sessions = sessions
        self._passwords = passwords
        self._second_factors = second_factors
        self._sign_ins = sign_ins
        self._outbox = outbox
        self._verified_email_required = verified_email_required

    def _check_new_password(self, field: str, password: str, *, email: str) -> None:
        if faults := self._passwords.faults(password, email=email):
            raise invalid(*(FieldViolation(field, fault) for fault in faults))

    async def _mail_token(self, tx: Transaction, kind: Kind, mail: Mail, account: Account | None, *, to: str) -> None:
        """For nobody it is the same work, and there is neither a token nor a mail."""
        account_id, name = (account.id, account.display_name) if account else (uuid7(), "")
        token = await account_tokens.issue(tx, kind, account_id=account_id, email=to)
        await self._outbox.post(tx, mail, to=to if account else None, display_name=name, token=token)
