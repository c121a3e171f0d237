"""Disables the access checks one by one in a copy of the tree, and fails if the named tests still pass.

`make mutations` runs all; `make mutations args='tasks keys'` runs those whose name contains one of the words.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PYTEST = ("-q", "-x", "--tb=line", "--show-capture=no", "-p", "no:cacheprovider")
SOURCES = tuple(
    str(folder.relative_to(ROOT)) for kind in ("packages", "services") for folder in sorted((ROOT / kind).iterdir())
)


class Mutation(NamedTuple):
    """Replaces `old`, which occurs once in the file, with `new`. At least one of the tests must then fail."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


INTERCEPTOR = "packages/auth/accord_auth/interceptor.py"
CALLER = "packages/rpc/accord_rpc/caller.py"
QUERIES = "packages/db/accord_db/queries"
RLS_MIGRATION = "packages/db/accord_db/migrations/versions/2026_11_21_0200_organizations_and_services.py"
ROWS = "tests/db/test_row_level_security.py"
JSON = "packages/rpc/accord_rpc/protocols/json_codec"
JSON_TESTS = "tests/rpc/protocols/test_json_codec.py"
TENANCY = "tests/api/test_tenancy.py"
DOCUMENTED = "tests/api/test_documented_responses.py"
MATRIX = ("tests/api/test_matrix.py::test_every_method_accepts_exactly_the_callers_of_its_policy_through_every_face",)


def foreign(*places: str) -> tuple[str, ...]:
    test = "tests/api/test_foreign_ids.py::test_resource_of_another_tenant_is_not_found"
    return tuple(f"{test}[{place} in an organization]" for place in places)


MUTATIONS = (
    Mutation(
        "tasks: a query ignores the owner",
        f"{QUERIES}/tasks.py",
        '_OWNED: Final = Task.owner_id == bindparam("owner_id")\n',
        '_OWNED: Final = bindparam("owner_id", type_=Uuid).is_not(None)\n',
        foreign("GetTask.task_id", "UpdateTask.task.id"),
    ),
    Mutation(
        "sessions: a query ignores the account",
        f"{QUERIES}/sessions.py",
        '_THIS = (Session.id == bindparam("session_id"), Session.account_id == bindparam("account_id"))\n',
        '_THIS = (Session.id == bindparam("session_id"), bindparam("account_id", type_=Uuid).is_not(None))\n',
        foreign("GetSession.session_id", "RevokeSession.session_id"),
    ),
    Mutation(
        "roles: a query ignores the organization",
        f"{QUERIES}/roles.py",
        '_OF_ORGANIZATION = Role.organization_id == bindparam("organization_id")\n',
        '_OF_ORGANIZATION = bindparam("organization_id", type_=Role.organization_id.type).is_not(None)\n',
        foreign("GetRole.role_id", "DeleteRole.role_id"),
    ),
    Mutation(
        "keys: a query ignores the owner",
        f"{QUERIES}/api_keys.py",
        '_OWNED = ApiKey.owner_id == bindparam("owner_id")\n',
        '_OWNED = bindparam("owner_id", type_=ApiKey.owner_id.type).is_not(None)\n',
        foreign("GetApiKey.api_key_id", "RevokeApiKey.api_key_id"),
    ),
    Mutation(
        "invitations: a query ignores the organization",
        f"{QUERIES}/invitations.py",
        '_OF_ORGANIZATION = Invitation.organization_id == bindparam("organization_id")\n',
        '_OF_ORGANIZATION = bindparam("organization_id", type_=Invitation.organization_id.type).is_not(None)\n',
        foreign("CancelInvitation.invitation_id"),
    ),
    Mutation(
        "members: a query ignores the organization",
        f"{QUERIES}/members.py",
        '_OF_ORGANIZATION = Member.organization_id == bindparam("organization_id")\n',
        '_OF_ORGANIZATION = bindparam("organization_id", type_=Member.organization_id.type).is_not(None)\n',
        foreign("UpdateMember.member.account_id", "RemoveMember.account_id"),
    ),
    Mutation(
        "rows: the policies permit every row",
        RLS_MIGRATION,
        "                OR (SELECT current_setting('accord.tenant', true) = 'all')\n",
        "                OR true\n",
        (f"{ROWS}::test_rows_of_another_tenant_are_not_found",),
    ),
    Mutation(
        "rows: row-level security is disabled",
        RLS_MIGRATION,
        '        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")\n',
        "",
        (f"{ROWS}::test_rows_of_another_tenant_are_not_found",),
    ),
    Mutation(
        "rows: a child table has no policy",
        "packages/db/accord_db/engine/row_level_security.py",
        "    return tenant_column(table) is not None or bool(tenant_parents(table))\n",
        "    return tenant_column(table) is not None\n",
        (f"{ROWS}::test_tenant_bound_table_must_not_be_exempt",),
    ),
    Mutation(
        "rows: the policy of a child shows those of all parents",
        "packages/db/accord_db/engine/row_level_security.py",
        '    return f"(SELECT true FROM {parent} WHERE {same})"',
        '    return f"(SELECT true OR {same} FROM {parent} LIMIT 1)"',
        (
            f"{ROWS}::test_rows_of_another_tenant_are_not_found",
            f"{ROWS}::test_insert_of_a_row_of_another_tenant_is_denied",
        ),
    ),
    Mutation(
        "rows: a table may have neither a tenant nor a reason",
        "packages/db/accord_db/engine/row_level_security.py",
        "    if not bound and not (reason and reason.strip()):\n",
        "    if False:\n",
        (
            f"{ROWS}::test_table_without_a_tenant_or_a_reason_is_a_problem",
            "tests/api/test_contract.py::test_table_without_a_tenant_or_a_reason_is_refused",
        ),
    ),
    Mutation(
        "invitations: a token of another address is accepted",
        f"{QUERIES}/invitations.py",
        "    _HAS_EMAIL,\n",
        "    _HAS_EMAIL | _HAS_EMAIL.is_not(None),\n",
        ("tests/api/test_invitations.py::test_invitation_for_another_address_is_not_found",),
    ),
    Mutation(
        "policies: a method does not require its permission",
        "proto/accord/tasks/v1/tasks.proto",
        """  rpc DeleteTask(DeleteTaskRequest) returns (DeleteTaskResponse) {
    option idempotency_level = IDEMPOTENT;
    option (google.api.http) = {delete: "/v1/tasks/{task_id}"};
    option (accord.policy.v1.policy) = {
      access: ACCESS_SIGNED_IN
      permission: PERMISSION_TASKS_WRITE
      personal: true
""",
        """  rpc DeleteTask(DeleteTaskRequest) returns (DeleteTaskResponse) {
    option idempotency_level = IDEMPOTENT;
    option (google.api.http) = {delete: "/v1/tasks/{task_id}"};
    option (accord.policy.v1.policy) = {
      access: ACCESS_SIGNED_IN
""",
        ("tests/api/test_contract.py::test_served_contract_is_valid",),
    ),
    Mutation(
        "policies: a write requires the permission to read",
        "proto/accord/api_keys/v1/api_keys.proto",
        """  rpc RevokeApiKey(RevokeApiKeyRequest) returns (RevokeApiKeyResponse) {
    option idempotency_level = IDEMPOTENT;
    option (google.api.http) = {
      post: "/v1/apiKeys/{api_key_id}:revoke"
      body: "*"
    };
    option (accord.policy.v1.policy) = {
      access: ACCESS_SIGNED_IN
      permission: PERMISSION_API_KEYS_WRITE
""",
        """  rpc RevokeApiKey(RevokeApiKeyRequest) returns (RevokeApiKeyResponse) {
    option idempotency_level = IDEMPOTENT;
    option (google.api.http) = {
      post: "/v1/apiKeys/{api_key_id}:revoke"
      body: "*"
    };
    option (accord.policy.v1.policy) = {
      access: ACCESS_SIGNED_IN
      permission: PERMISSION_API_KEYS_READ
""",
        ("tests/docs/test_policies.py::test_page_matches_the_contract",),
    ),
    Mutation(
        "browsers: other sites may use the session cookie",
        "packages/rpc/accord_rpc/pipeline/session_cookies.py",
        "        if from_another_site:\n",
        "        if False:\n",
        ("tests/api/test_browsers.py::test_other_sites_cannot_use_the_cookie",),
    ),
    Mutation(
        "browsers: other sites may sign the user in",
        "packages/rpc/accord_rpc/pipeline/session_cookies.py",
        "            self._admit(has_cookie=False)\n",
        "            pass\n",
        ("tests/api/test_browsers.py::test_other_sites_cannot_sign_the_user_in",),
    ),
    Mutation(
        "browsers: the token stays in the response",
        "packages/rpc/accord_rpc/pipeline/session_cookies.py",
        '        message.session_token = ""\n',
        "",
        ("tests/api/test_browsers.py::test_sign_in_sets_the_cookie_and_leaves_the_token_out",),
    ),
    Mutation(
        "browsers: every origin may read responses",
        "packages/rpc/accord_rpc/protocols/cors.py",
        "        allowed = self._allowed.get(origin)\n",
        "        allowed = next(iter(self._allowed.values()))\n",
        ("tests/api/test_browsers.py::test_other_origins_are_not_allowed",),
    ),
    Mutation(
        "routes: a secret may be part of a URL",
        "packages/rpc/accord_rpc/protocols/rest/http_rules.py",
        "        elif any(map(is_sensitive, leaf.fields)):\n",
        "        elif False:\n",
        ("tests/rpc/protocols/test_http_rules.py::test_wrong_rule_is_a_problem",),
    ),
    Mutation(
        "tenancy: handlers may read the owner where the policy has no permission",
        "packages/rpc/accord_rpc/tenancy.py",
        "        if method.policy.permission or (handler := _function(handlers.get(method.path))) is None:\n",
        "        if True:\n",
        (f"{TENANCY}::test_startup_fails_if_a_handler_reads_the_owner_in_a_method_without_a_permission",),
    ),
    Mutation(
        "tenancy: the owner is available where the policy has no permission",
        INTERCEPTOR,
        "        caller = found.permitted if self._policy.permission else found.caller\n",
        "        caller = found.permitted\n",
        (f"{TENANCY}::test_owner_is_not_readable_in_a_method_without_a_permission",),
    ),
    Mutation(
        "tenancy: row-level security shows the active organization where the policy has no permission",
        CALLER,
        "tenant_of(self.owner_id if self.permission_checked else self.account_id)",
        "tenant_of(self.organization_id or self.account_id)",
        (
            f"{TENANCY}::test_row_level_security_hides_rows_from_a_former_member_when_no_permission_was_checked",
            "tests/api/test_row_level_security.py::test_tenant_of_a_call_without_a_permission_is_the_account",
        ),
    ),
    Mutation(
        "tenancy: a former member has access",
        CALLER,
        "        return permission in self.permissions\n",
        "        return not self.permissions or permission in self.permissions\n",
        (f"{TENANCY}::test_no_method_returns_or_changes_rows_of_an_organization_for_a_former_member",),
    ),
    Mutation(
        "faces: one code has another status",
        "packages/rpc/accord_rpc/protocols/http_errors.py",
        "Code.ABORTED: 409",
        "Code.ABORTED: 400",
        (f"{DOCUMENTED}::test_every_documented_error_of_every_route_arrives_as_documented",),
    ),
    Mutation(
        "faces: refusals do not say when to retry",
        "packages/rpc/accord_rpc/protocols/http_errors.py",
        'yield b"retry-after"',
        'yield b"retry-later"',
        (
            "tests/api/test_faces_under_load.py::test_full_gateway_refuses_calls_at_once_except_health_checks",
            "tests/api/test_faces_under_load.py::test_draining_gateway_refuses_calls_as_retryable_except_health_checks",
        ),
    ),
    Mutation(
        "audit: a handler sets no target",
        "packages/api/accord_api/handlers/members.py",
        "        call().note(target=organization_id)\n",
        "",
        ("tests/api/test_audit.py::test_event_of_a_success_names_its_target",),
    ),
    Mutation(
        "audit: an event has the time at which its transaction started",
        "packages/db/accord_db/migrations/versions/2026_11_30_1809_audit_events_when_inserted.py",
        'sa.text("clock_timestamp()")',
        'sa.text("now()")',
        ("tests/db/test_audit.py::test_event_of_a_call_that_waited_is_later_than_what_it_waited_for",),
    ),
    Mutation(
        "access: permissions are not checked",
        CALLER,
        "        return permission in self.permissions\n",
        "    return True\n",
        MATRIX,
    ),
    Mutation(
        "access: any kind of credential is accepted",
        INTERCEPTOR,
        "    if not (caller.credential in policy.credentials and _of_kind(",
        "    if not (_of_kind(",
        MATRIX,
    ),
    Mutation(
        "access: a recent sign-in is not required",
        INTERCEPTOR,
        "        if self._policy.fresh and self._clock.now() >= caller.fresh_until:\n",
        "        if False:\n",
        MATRIX,
    ),
    Mutation(
        "access: impersonators and services may call methods in person",
        INTERCEPTOR,
        "    if policy.in_person and (caller.impersonator_id or caller.service_account_id):\n",
        "    if False:\n",
        MATRIX,
    ),
    Mutation(
        "access: a session may call every method before the password is changed",
        INTERCEPTOR,
        "    if caller.password_change_required and not policy.before_password_change:\n",
        "    if False:\n",
        MATRIX,
    ),
    Mutation(
        "access: a personal key may call methods of organizations",
        CALLER,
        "        if self.organization_id is None and not personal:\n",
        "        if False:\n",
        MATRIX,
    ),
    Mutation(
        "access: a personal key needs no scope",
        CALLER,
        "        if self.organization_id is None and self.credential != CREDENTIAL_API_KEY:\n",
        "        if self.organization_id is None:\n",
        MATRIX,
    ),
    Mutation(
        "access: every account is an administrator",
        INTERCEPTOR,
        "        return caller.administrator\n",
        "        return True\n",
        MATRIX,
    ),
    Mutation(
        "accounts: a banned account has access",
        f"{QUERIES}/accounts.py",
        "        not_banned(account),\n",
        "        account.deleted_at.is_(None),\n",
        MATRIX,
    ),
    Mutation(
        "tokens: a token for another audience is accepted",
        "packages/auth/accord_auth/services/tokens.py",
        '(claims["iss"], claims["aud"]) == (self._issuer, self._audience)',
        'claims["iss"] == self._issuer',
        MATRIX,
    ),
    Mutation(
        "tokens: the checksum is not verified",
        "packages/auth/accord_auth/tokens.py",
        "    return body[_SECRET_BYTES:] == _checksum(prefix, body[:_SECRET_BYTES])\n",
        "    return True\n",
        ("tests/auth/test_api_keys.py::test_malformed_api_key_is_refused_without_a_query",),
    ),
    Mutation(
        "keys: a key exceeds the permissions of its creator",
        "packages/auth/accord_auth/api_keys.py",
        "        permissions=scopes if is_personal else scopes & held(api_key.role, api_key.permissions),\n",
        "        permissions=scopes,\n",
        MATRIX,
    ),
    Mutation(
        "members: a member grants permissions that they do not have",
        "packages/api/accord_api/membership_changes.py",
        "    if not await held_now(tx, organization_id, caller().account_id) >= frozenset(permissions):\n",
        "    if not await held_now(tx, organization_id, caller().account_id):\n",
        ("tests/api/test_members.py::test_role_can_be_assigned_and_removed_only_by_holders_of_its_permissions",),
    ),
    Mutation(
        "members: the last owner can leave",
        "packages/api/accord_api/handlers/members.py",
        '    if now.role == "owner" and not await members.has_other_owner(tx, **place):\n',
        "    if False:\n",
        ("tests/api/test_members.py::test_last_owner_cannot_be_demoted_or_removed",),
    ),
    Mutation(
        "administration: an administrator impersonates another",
        "packages/api/accord_api/handlers/admin.py",
        "account_id == me.account_id or account.role == ADMINISTRATOR or is_banned(account, self._db.clock)",
        "account_id == me.account_id or is_banned(account, self._db.clock)",
        ("tests/api/test_admin.py::test_caller_administrator_and_banned_account_cannot_be_impersonated",),
    ),
    Mutation(
        "pages: the contract is readable without a sign-in",
        "services/gateway/accord_gateway/server/pages.py",
        """    if settings.reflection == "signed-in":
        document""",
        """    if False:
        document""",
        ("tests/gateway/test_docs_page.py::test_document_requires_a_session_where_reflection_does",),
    ),
    Mutation(
        "masks: a path names a read-only field",
        "packages/rpc/accord_rpc/masks.py",
        "            if path not in self._readers\n",
        "            if False\n",
        ("tests/api/test_masks.py::test_mask_with_a_path_that_cannot_be_changed_is_invalid",),
    ),
    Mutation(
        "drift: a field that no column can hold is served",
        "packages/rpc/accord_rpc/drift.py",
        "        yield unmappable(field)\n",
        "        yield from ()\n",
        ("tests/rpc/test_drift.py::test_field_that_no_column_holds_is_refused_whatever_the_column",),
    ),
    Mutation(
        "drift: a request may hold more than its column",
        "packages/rpc/accord_rpc/drift.py",
        "limit <= length",
        "limit >= 0",
        ("tests/rpc/test_drift.py::test_request_field_may_hold_less_than_its_column_and_not_more",),
    ),
    Mutation(
        "lists: a page token serves every caller",
        "packages/rpc/accord_rpc/pagination.py",
        "parts = [me.account_id.bytes, active.bytes, ",
        "parts = [",
        ("tests/api/test_lists.py::test_page_token_is_refused_if_altered_or_of_another_caller_or_order[ListTasks]",),
    ),
    Mutation(
        "json: a key may be given twice",
        f"{JSON}/document.py",
        "    if _has_unique_keys(body, value):\n",
        "    if True:\n",
        (f"{JSON_TESTS}::test_a_create_request_with_a_problem_is_refused_with_the_path",),
    ),
    Mutation(
        "json: both spellings of a field may be given",
        f"{JSON}/reader.py",
        "            if key.twin in value:\n",
        "            if key.twin is value:\n",
        (f"{JSON_TESTS}::test_a_create_request_with_a_problem_is_refused_with_the_path",),
    ),
    Mutation(
        "json: objects may be nested without end",
        f"{JSON}/document.py",
        "        if depth > MAX_DEPTH:\n",
        "        if depth > 10 * MAX_DEPTH:\n",
        (f"{JSON_TESTS}::test_nesting_is_limited_to_what_the_parser_of_binary_messages_takes",),
    ),
    Mutation(
        "connect: the length of a compressed response reveals a secret",
        "packages/rpc/accord_rpc/protocols/connect/calls.py",
        "self._gzips = endpoint.compresses and accepts_gzip(value)\n",
        "self._gzips = accepts_gzip(value)\n",
        ("tests/rpc/protocols/test_connect.py::test_a_response_with_a_secret_is_not_compressed",),
    ),
)


def main(words: Sequence[str]) -> int:
    chosen = [mutation for mutation in MUTATIONS if not words or any(word in mutation.name for word in words)]
    if not chosen:
        print(f"No mutation's name has {' or '.join(words)}.", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="accord-mutations-") as folder:
        tree = Path(folder)
        copy(tree)
        if not tests_pass(tree, sorted({test for mutation in chosen for test in mutation.tests})):
            return 1
        survivors = [mutation.name for mutation in chosen if not is_detected(tree, mutation)]
    print(f"\n{len(chosen) - len(survivors)} of {len(chosen)} were detected.")
    return 1 if survivors else 0


def copy(tree: Path) -> None:
    """The files of the work tree that git does not ignore."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tree / name)


def tests_pass(tree: Path, tests: Iterable[str]) -> bool:
    """Whether all tests pass without a mutation. Otherwise their failures would prove nothing."""
    failed, seconds, output = run(tree, tests)
    report("no mutation", not failed, "pass" if not failed else "FAIL", seconds)
    if failed:
        print(output)
    return not failed


def is_detected(tree: Path, mutation: Mutation) -> bool:
    path = tree / mutation.file
    original = path.read_text()
    path.write_text(mutated(original, mutation))
    make_stubs(tree, path)
    failed, seconds, output = run(tree, mutation.tests)
    path.write_text(original)
    make_stubs(tree, path)
    report(mutation.name, failed, first_failure(output) if failed else "SURVIVED", seconds)
    return failed


def mutated(text: str, mutation: Mutation) -> str:
    count = text.count(mutation.old)
    if count != 1:
        raise SystemExit(f"{mutation.name}: the text to replace occurs {count} times in {mutation.file}, expected 1")
    return text.replace(mutation.old, mutation.new)


def make_stubs(tree: Path, changed: Path) -> None:
    if changed.suffix == ".proto":
        subprocess.run([sys.executable, "tools/stubs.py"], cwd=tree, check=True, capture_output=True)


def run(tree: Path, tests: Iterable[str]) -> tuple[bool, float, str]:
    """Whether a test failed, the seconds, and the output. Exits if the tests cannot run."""
    began = time.monotonic()
    path = os.pathsep.join(str(tree / source) for source in SOURCES)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *PYTEST, *tests],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )
    if done.returncode and not re.search(r"^FAILED ", done.stdout, flags=re.MULTILINE):
        raise SystemExit(f"the tests could not be run:\n{done.stdout}{done.stderr}")
    return done.returncode != 0, time.monotonic() - began, done.stdout


def first_failure(output: str) -> str:
    match = re.search(r"^FAILED \S*?::(.+?)(?: - |$)", output, flags=re.MULTILINE)
    return match[1] if match else "?"


def report(name: str, success: bool, result: str, seconds: float) -> None:
    colour = "\033[32m" if success else "\033[31;1m"
    text = f"{colour}{result}\033[0m" if sys.stdout.isatty() else result
    print(f"{name:.<64} {seconds:4.0f} s  {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
