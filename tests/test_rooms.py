"""Imports run one way: between the packages, and between the rooms of training_mac and evaluation_mac."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[1]
# Every package or room, and those that it may import; docs/design.md draws the same picture.
ALLOWED = {
    "modeling_mac": "",
    "processing_mac": "",
    "evaluation_mac": "modeling_mac processing_mac",
    "training_mac": "modeling_mac processing_mac evaluation_mac",
    "serving_mac": "modeling_mac processing_mac evaluation_mac training_mac",
    "study_mac": "modeling_mac processing_mac evaluation_mac training_mac",
    "demo_mac": "modeling_mac processing_mac evaluation_mac training_mac",
    "evaluation_mac.metrics": "",
    "evaluation_mac.reports": "metrics",
    "evaluation_mac.datasets": "metrics",
    "evaluation_mac.protocols": "datasets metrics reports",
    "evaluation_mac.scripts": "metrics",
    "evaluation_mac.options": "datasets metrics protocols",
    "evaluation_mac.cli": "options datasets metrics protocols reports",
    "training_mac.recipe": "",
    "training_mac.data": "recipe",
    "training_mac.loop": "recipe",
    "training_mac.examples": "data recipe",
    "training_mac.objectives": "examples data loop recipe",
    "training_mac.run": "objectives data loop recipe",
    "training_mac.release": "recipe",
    "training_mac.cli": "run release",
}
APPLICATIONS = {"processing_mac/cli_mac.py", "modeling_mac/convert_cli_mac.py"}  # commands, on top of both packages
PACKAGES = [name for name in ALLOWED if "." not in name]


def modules_in(path: Path) -> Iterator[str]:
    """Every module that a file imports, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_of(module: str) -> str:
    """`training_mac.loop` of `training_mac.loop.trainer`; the package where that has no rooms."""
    room = ".".join(module.split(".")[:2])
    return room if room in ALLOWED else module.split(".")[0]


@pytest.mark.parametrize("path", [file for name in PACKAGES for file in sorted((ROOT / name).rglob("*.py"))],
                         ids=lambda path: str(path.relative_to(ROOT)))  # fmt: skip
def test_imports_run_one_way(path: Path) -> None:
    name = path.relative_to(ROOT).as_posix()
    module = name.removesuffix(".py").replace("/", ".")
    package, room = module.split(".")[0], room_of(module)
    for imported in modules_in(path):
        other_package, other = imported.split(".")[0], room_of(imported)
        if other_package not in PACKAGES or other == room or name in APPLICATIONS:
            continue
        if module == f"{other_package}.__init__":  # the door of a package opens on its rooms
            continue
        allowed = ALLOWED[package if other_package != package else room].split()
        assert (other_package if other_package != package else other.split(".")[-1]) in allowed, f"{name}: {imported}"


def test_the_rooms_are_few() -> None:
    rooms = {name: arrows.split() for name, arrows in ALLOWED.items() if name.startswith("training_mac.")}
    assert len(rooms) <= 8 and sum(map(len, rooms.values())) <= 15
