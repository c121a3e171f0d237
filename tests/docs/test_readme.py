"""CI runs the commands of README.md; its targets, folders and links exist."""

import re
import shlex
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest

from accord_gateway.cli.banner import banner
from accord_gateway.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
CI = (ROOT / ".ci/run").read_text()
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]

CURL_MARKER = "<!-- .ci/run runs these against `make run` -->\n"
BUF_MARKER = "<!-- and this, with buf -->\n"
GRPCURL_MARKER = "<!-- and this, with grpcurl -->\n"
MAIL_MARKER = "<!-- .ci/run runs these too -->\n"
PAGE_MARKER = "<!-- .ci/run runs this -->\n"


def block_after(marker: str) -> str:
    block = re.search(re.escape(marker) + r"```sh\n(.*?)```", README, flags=re.DOTALL)
    assert block, f"there is no block after {marker}"
    return block[1]


def other_commands() -> list[str]:
    blocks = re.findall(r"^```sh\n(.*?)```", README, flags=re.MULTILINE | re.DOTALL)
    marked = {block_after(marker) for marker in (CURL_MARKER, BUF_MARKER, GRPCURL_MARKER, MAIL_MARKER)}
    return [line for block in blocks if block not in marked for line in block.splitlines()]


def without_addresses(text: str) -> str:
    return re.sub(r"postgresql://\S+", "postgresql://…", text)


@pytest.mark.parametrize("command", other_commands())
def test_command_is_run_by_ci(command: str) -> None:
    script = re.sub(r'"[^"\n]*"', '""', without_addresses(CI))
    pattern = re.escape(without_addresses(command))
    assert re.search(rf"^ *(step \"\" |\w+=\S+ )?{pattern}( |$)", script, flags=re.MULTILINE)


@pytest.mark.parametrize(
    ("page", "marker"),
    [
        ("README.md", CURL_MARKER),
        ("README.md", BUF_MARKER),
        ("README.md", GRPCURL_MARKER),
        ("README.md", MAIL_MARKER),
        ("docs/accounts.md", PAGE_MARKER),
        ("docs/organizations.md", PAGE_MARKER),
        ("docs/services.md", PAGE_MARKER),
        ("docs/administration.md", PAGE_MARKER),
    ],
)
def test_calls_are_run_by_ci(page: str, marker: str) -> None:
    assert f"block_of {page} '{marker.strip()}'" in CI
    assert marker in (ROOT / page).read_text()


@pytest.mark.parametrize("name", ["accounts", "organizations", "services", "administration"])
def test_every_shell_block_of_a_page_is_run_by_ci(name: str) -> None:
    page = (ROOT / f"docs/{name}.md").read_text()
    assert page.count("```sh\n") == page.count(f"{PAGE_MARKER}```sh\n")


def call(block: str) -> tuple[str, list[str]]:
    """The method, message and headers that buf or grpcurl sends."""
    words = shlex.split(block.replace("\\\n", " "))
    method = "/".join(words[-1].split("/")[-2:])
    return method, [value for flag, value in pairwise(words) if flag in ("-d", "-H")]


def test_grpcurl_and_buf_send_the_same_call() -> None:
    sent = call(block_after(BUF_MARKER))
    assert sent[0] == "accord.tasks.v1.TaskService/ListTasks"
    assert call(block_after(GRPCURL_MARKER)) == sent


def test_curl_sends_the_calls_that_make_run_prints() -> None:
    """README breaks their lines."""
    shown = {
        line.replace('session_*[Tt]oken": *', 'sessionToken":') for line in banner(Settings(server="accord"), 50051)
    }
    lines = re.sub(r" \\\n +", " ", block_after(CURL_MARKER)).replace("|\n ", "|").splitlines()
    assert len(lines) == 4
    assert [line for line in lines if line not in shown] == []


def test_readme_shows_the_output_of_make_help() -> None:
    printed = subprocess.run(["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "```\n" + re.sub("^  ", "", printed, flags=re.MULTILINE) + "```" in README


def test_named_folders_exist() -> None:
    tree = re.search(r"^proto/ .*?(?=```)", README, flags=re.MULTILINE | re.DOTALL)
    assert tree
    named = {line.split()[0] for line in tree[0].splitlines()}
    assert all((ROOT / folder).is_dir() for folder in named)
    assert {f"{folder.relative_to(ROOT)}/" for folder in (ROOT / "packages").iterdir()} <= named


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_links_have_a_target(page: Path) -> None:
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    links = re.findall(r"\]\(([^):]*)\)", prose)
    assert [link for link in links if not has_target(page, *link.partition("#"))] == []


def has_target(page: Path, path: str, sign: str, section: str) -> bool:
    target = page.parent / path if path else page
    return target.exists() and (not sign or section in sections(target))


def sections(page: Path) -> set[str]:
    """The anchors of the headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
