"""What the pages name exists: links and their headings, commands, and the length that README keeps to."""

import re
import tomllib
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[1]
PAGES = sorted(
    page
    for pattern in (
        "*.md",
        "docs/*.md",
        "docs/*/*.md",
        "benchmarks/*.md",
        "examples/*.md",
        "spaces/*/*.md",
        "model_cards/*/*.md",
    )
    for page in ROOT.glob(pattern)
)
# A command stands at the start of a line or in backticks; what follows it is a target of make or a file of Python.
COMMAND = re.compile(r"(?:^|`)(mac-[a-z]+|make|python) ([\w./-]+)?", re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_resolve(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        file, _, anchor = link.partition("#")
        target = page.parent / file if file else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_exist(page: Path) -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    rules = re.findall(r"^([a-z][a-z -]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    targets = " ".join(rules).split()
    for command, argument in COMMAND.findall(page.read_text(encoding="utf-8")):
        if command.startswith("mac-") and command != "mac-tiny":
            assert command in scripts, command
        if command == "make" and argument:
            assert argument in targets, f"make {argument}"
        if command == "python" and argument.endswith(".py"):
            assert (ROOT / argument).is_file(), argument


def test_readme_is_short() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 150


def test_every_page_is_linked_from_readme() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [page.name for page in (ROOT / "docs").glob("*.md") if f"docs/{page.name}" not in text] == []


def test_readme_names_every_extra() -> None:
    text, project = (ROOT / "README.md").read_text(), tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert [extra for extra in project["optional-dependencies"] if f"`.[{extra}]`" not in text] == []
