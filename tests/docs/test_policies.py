"""docs/policies.md says what the contract says."""

import policies


def test_the_page_is_what_the_contract_says() -> None:
    assert policies.PAGE.read_text() == policies.page(), "run python tools/policies.py, and look at what it changed"


def test_every_permission_and_every_method_is_on_it() -> None:
    page = policies.page()
    assert "| `tasks.read` | ● | ● | ● |" in page
    assert "| `organization.delete` | ● |  |  |" in page
    assert "| `GetTask` | `tasks.read`, personal | session, API key, service token |  |" in page
    assert "| `DeleteOrganization` | `organization.delete` | session | recent, audited |" in page
    assert "| `SignUp` | anybody | none | audited |" in page
