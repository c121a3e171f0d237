from dataclasses import replace
from datetime import UTC, datetime
from uuid import uuid4

from accord.policy.v1.policy_pb2 import CREDENTIAL_SESSION
from accord_auth.credentials import Authenticated
from accord_rpc.caller import Caller


def test_authenticators_leave_the_permission_unchecked() -> None:
    """Only the interceptor knows the policy. It takes `permitted` where the policy has a permission."""
    caller = Caller(
        account_id=uuid4(),
        credential=CREDENTIAL_SESSION,
        credential_id=uuid4(),
        authenticated_at=datetime.now(UTC),
        organization_id=uuid4(),
    )
    found = Authenticated(caller, ())
    assert not found.caller.permission_checked
    assert found.permitted == replace(caller, permission_checked=True)
    assert found.permitted is found.permitted
