"""The folder that is to be a Space agrees with the package."""

import runpy
from pathlib import Path

import pytest
import yaml

from demo_mac import cli


ROOT = Path(__file__).parents[2]
SPACE = ROOT / "spaces" / "mac-demo"
CONSTRAINTS = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text("utf-8").split() if "==" in line)


@pytest.fixture(scope="module")
def metadata():
    return yaml.safe_load((SPACE / "README.md").read_text("utf-8").split("---\n")[1])


def test_metadata_name_the_tested_gradio_and_a_real_file(metadata):
    assert metadata["sdk"] == "gradio" and metadata["sdk_version"] == CONSTRAINTS["gradio"]
    assert (SPACE / metadata["app_file"]).is_file()
    assert metadata["license"] == "apache-2.0" and metadata["models"] and metadata["tags"]
    assert len(metadata["short_description"]) <= 60  # the Hub refuses a longer one


def test_requirements_are_the_package_and_a_cpu_torch():
    requirements = (SPACE / "requirements.txt").read_text("utf-8").splitlines()
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    [name] = [line.removesuffix("[demo]") for line in requirements if line.endswith("[demo]")]
    assert f'\nname = "{name}"\n' in project and "\ndemo = [" in project
    assert f"torch=={CONSTRAINTS['torch']}+cpu" in requirements


@pytest.mark.parametrize("model", [None, "user/other"])
def test_app_starts_the_command_where_the_hub_looks(model, monkeypatch):
    calls = []
    monkeypatch.setattr(cli, "main", lambda arguments: calls.append(cli.build_parser().parse_args(arguments)) or 0)
    monkeypatch.setenv("MAC_MODEL", model) if model else monkeypatch.delenv("MAC_MODEL", raising=False)
    with pytest.raises(SystemExit) as exit:
        runpy.run_path(str(SPACE / "app.py"))
    assert exit.value.code == 0
    [options] = calls
    assert (options.host, options.port) == ("0.0.0.0", 7860)
    assert options.model == (model or cli.DEFAULT_MODEL)
