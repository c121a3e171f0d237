"""docs/policies.md matches the contract."""

import pytest

import policies

pytestmark = pytest.mark.every_feature


def test_page_matches_the_contract() -> None:
    assert policies.PAGE.read_text() == policies.page(), "run `make stubs`, and review its changes"


def test_every_permission_and_every_method_is_on_the_page() -> None:
    page = policies.page()
    assert "| `tasks.read` | ● | ● | ● |" in page
    assert "| `organization.delete` | ● |  |  |" in page
    route = "`DELETE /v1/organization`"
    assert (
        f"| `DeleteOrganization` | {route} | `organization.delete` | session | recent, audited |  | 5 s / 30 s |"
        in page
    )
    limits = "20 / 1 min per address, durable; 10 / 1 h per account, durable"
    assert f"| `SignUp` | `POST /v1/accounts` | public | none | audited | {limits} | 10 s / 30 s |" in page


def test_page_shows_the_defaults_of_the_service() -> None:
    """GetTask declares none of its credentials, rate limits and deadlines."""
    credentials, limits = "session, API key, service token", "60,000 / 10 s per caller"
    route = "`GET /v1/tasks/{task_id}`"
    row = f"| `GetTask` | {route} | `tasks.read`, personal | {credentials} |  | {limits} | 5 s / 30 s |"
    assert row in policies.page()
