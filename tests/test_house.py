"""The house keeps its own rules."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from attnlearn._status import Status

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCK = (ROOT / "requirements.lock").read_text()


def committed_files() -> list[Path]:
    """The files that git tracks or would track; `[]` where there is no git."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return []
    return [path for path in map(ROOT.joinpath, listed.splitlines()) if path.is_file()]


def text_of(path: Path) -> str:
    return path.read_bytes().decode("utf-8", errors="replace")


def sources(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


# The words are put together here so that this file does not hold them.
MACHINE_WORDS = [
    *("/" + place + "/" for place in ("work", "root", "home", "Users", "opt")),
    "/" + "tmp/",
    "file:" + "//",
    "index-" + "url",
    "find-" + "links",
    "://" + "pypi.",
    "files.python" + "hosted",
]


@pytest.mark.parametrize("word", MACHINE_WORDS)
def test_no_file_holds_a_machine_path_or_a_registry_address(word):
    holders = [str(path.relative_to(ROOT)) for path in committed_files() if word in text_of(path)]
    assert holders == []


@pytest.mark.parametrize("status", Status, ids=lambda status: status.name)
def test_every_status_is_named_in_a_test(status):
    name = re.compile(rf"\bStatus\.{status.name}\b")
    assert any(name.search(path.read_text()) for path in sources("tests"))


@pytest.mark.parametrize("status", Status, ids=lambda status: status.name)
def test_every_status_is_used_by_the_library(status):
    name = re.compile(rf"\bStatus\.{status.name}\b")
    assert any(name.search(path.read_text()) for path in sources("src"))


def test_every_skip_has_a_row_in_quarantine():
    rows = (ROOT / "tests" / "QUARANTINE.md").read_text()
    skip = re.compile(r"importorskip\(|pytest\.skip\(|mark\.skip|mark\.xfail")
    skipping = [str(path.relative_to(ROOT)) for path in sources("tests") if path != Path(__file__)]
    skipping = [name for name in skipping if skip.search((ROOT / name).read_text())]
    assert [name for name in skipping if f"`{name}`" not in rows] == []


def test_quarantine_names_no_file_that_skips_nothing():
    rows = (ROOT / "tests" / "QUARANTINE.md").read_text()
    for name in re.findall(r"^\| `(tests/[^`]+)`", rows, flags=re.MULTILINE):
        assert "skip" in (ROOT / name).read_text() or "xfail" in (ROOT / name).read_text()


def test_the_lock_pins_every_dependency_and_nothing_else():
    pins = [line for line in LOCK.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    assert all(re.match(r"[a-z0-9-]+(\[[a-z0-9,-]+\])?==[^ ]+( ; .+)?$", pin) for pin in pins)
    pinned = {re.split(r"[=\[]", pin)[0] for pin in pins}
    extras = PROJECT["project"]["optional-dependencies"]
    needed = PROJECT["project"]["dependencies"] + extras["test"] + extras["dev"]
    assert {re.split(r"[><=\[]", need)[0] for need in needed} <= pinned


def test_the_version_stands_in_pyproject_only():
    quoted = re.compile(rf"[\"']{re.escape(PROJECT['project']['version'])}[\"']")
    assert [path.name for path in sources("src") if quoted.search(path.read_text())] == []


def test_the_changelog_has_the_version():
    assert f"## {PROJECT['project']['version']}" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.parametrize("name", ["run", "check", ".ci/run"])
def test_command_is_executable_and_plain_sh(name):
    path = ROOT / name
    assert path.stat().st_mode & 0o111
    assert path.read_text().startswith("#!/bin/sh\n")


@pytest.mark.parametrize("path", sources("src"), ids=lambda path: path.name)
def test_source_file_is_short_enough_to_read(path):
    assert len(path.read_text().splitlines()) <= 400


def test_no_module_sets_a_global_jax_option():
    setting = re.compile(r"jax\.config\.update|jax\.config\.jax_\w+ *= ")
    assert [path.name for path in sources("src") if setting.search(path.read_text())] == []


@pytest.mark.slow
@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_the_examples_of_the_docs_run(page):
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    names: dict = {}
    for block in blocks:
        exec(compile(block, page.name, "exec"), names)


def test_every_citation_is_in_the_bibliography():
    known = set(re.findall(r"^@\w+\{(\w+),", (ROOT / "docs" / "references.bib").read_text(), flags=re.MULTILINE))
    pages = [*(ROOT / "docs").glob("*.md"), *sources("src")]
    cited = {key for page in pages for key in re.findall(r"\[@(\w+)\]", page.read_text())}
    assert cited <= known
