"""
transformers' own common tests, from the source distribution of the installed version.

`make test` fetches that once, into the virtual environment; the tests run offline then, and are skipped where it is
missing. Modules that they import and the distribution lacks are replaced by empty ones.
"""

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
import transformers


FOLDER = Path(sys.prefix) / f"transformers-{transformers.__version__}" / "tests"
PACKAGE = "transformers_common_tests"
LACKING = {
    f"{PACKAGE}.exporters": {},
    f"{PACKAGE}.exporters.test_export": {"ExportTesterMixin": type("ExportTesterMixin", (), {})},
    f"{PACKAGE}.generation": {},
    f"{PACKAGE}.generation.test_utils": {"GenerationTesterMixin": type("GenerationTesterMixin", (), {})},
    "fetch_hub_objects_for_ci": {"url_to_local_path": lambda url: url},
}


def common_tests(module: str) -> ModuleType:
    """A module of transformers' tests; skips the module that asks where the distribution is missing."""
    if not FOLDER.is_dir():
        pytest.skip(
            f"transformers' common tests are not at {FOLDER}; `make test` fetches them.", allow_module_level=True
        )
    if PACKAGE not in sys.modules:
        package = ModuleType(PACKAGE)
        package.__path__ = [str(FOLDER)]
        sys.modules[PACKAGE] = package
        for name, members in LACKING.items():
            sys.modules[name] = ModuleType(name)
            vars(sys.modules[name]).update(members)
    return import_module(f"{PACKAGE}.{module}")


def leave_out(reasons: dict[str, str]) -> Callable[[type], type]:
    """A class decorator that skips the tests whose names start so, each for its reason; a name of none is an error."""

    def decorate(cls: type) -> type:
        for start, reason in reasons.items():
            names = [name for name in dir(cls) if name.startswith(start)]
            if not names:
                raise ValueError(f"{cls.__name__} has no test {start!r} to leave out.")
            for name in names:
                setattr(cls, name, pytest.mark.skip(reason=reason)(getattr(cls, name)))
        return cls

    return decorate
