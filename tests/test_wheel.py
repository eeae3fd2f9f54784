"""The wheel alone captions, evaluates, converts, trains and publishes: nothing of the checkout is on the path."""

import csv
import os
import subprocess
import sys
import sysconfig
import venv
from functools import partial
from pathlib import Path

import pytest
import soundfile
from hub_stand_in import HubStandIn


ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commands of a new environment that holds the wheel, and the packages of this one that it depends on."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    built = subprocess.run(build, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    [wheel] = folder.glob("*.whl")
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / "bin" / "python"
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder / "venv")}))
    # Paths in a .pth file are no places for .pth files: what is installed here by a link to the checkout is not seen.
    (site / "dependencies.pth").write_text("\n".join(path for path in sys.path if "site-packages" in path) + "\n")
    install = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True, capture_output=True, env=without_checkout())
    return folder / "venv" / "bin"


def without_checkout() -> dict[str, str]:
    """This environment without paths of packages, in which pip would take the checkout for what is installed."""
    return {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}


def call(programs: Path, folder: Path, name: str, *arguments: str, expected: int = 0, **environment: str) -> str:
    """What a command of the wheel prints when it runs in a folder."""
    quiet = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **environment}
    ended = subprocess.run(
        [programs / name, *arguments], cwd=folder, env={**without_checkout(), **quiet}, capture_output=True, text=True
    )
    assert ended.returncode == expected, ended.stderr
    return ended.stdout + ended.stderr


@pytest.fixture
def run(programs: Path, tmp_path: Path):
    return partial(call, programs, tmp_path)


@pytest.fixture(scope="module")
def model(programs: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The checkpoint that ships; nothing of the checkout is seen."""
    code = "import training_mac, processing_mac as p; print(training_mac.__file__, p.DEFAULT_MODEL)"
    code_file, folder = call(programs, tmp_path_factory.mktemp("empty"), "python", "-c", code).split()[-2:]
    assert not Path(code_file).is_relative_to(ROOT) and not Path(folder).is_relative_to(ROOT)
    return folder


@pytest.fixture
def manifest(tmp_path: Path, sound) -> Path:
    """Two recordings with captions."""
    rows = [("a.wav", "dog", "a dog barks"), ("b.wav", "rain", "rain falls")]
    for name, *_ in rows:
        soundfile.write(tmp_path / name, sound(2), 16_000)
    with open(tmp_path / "clips.csv", "w", newline="") as file:
        csv.writer(file).writerows([("audio", "source", "caption"), *rows])
    return tmp_path / "clips.csv"


def test_every_package_brings_its_types(run):
    names = sorted(path.parent.name for path in ROOT.glob("*_mac/__init__.py"))
    code = f"from importlib.resources import files; print(*[(files(name) / 'py.typed').is_file() for name in {names}])"
    assert run("python", "-c", code).split() == ["True"] * 7


def test_it_captions_and_evaluates(run, manifest, model):
    assert run("mac-caption", "a.wav").count("a.wav\t") == 1
    options = ["--model", model, "--data", "clips.csv", "--output", "out", "--naming", "esc50"]
    assert "naming_accuracy" in run("mac-eval", "captioning", *options)


def test_it_converts(run):
    assert "exists already" in run(
        "mac-convert", "--audio", "a", "--language-model", "b", "--output", __file__, expected=2
    )


def test_it_trains_a_shipped_recipe_and_writes_its_card(run, manifest, tmp_path):
    printed = run("mac-train", "tinny", expected=2)
    assert "tinny: no such recipe" in printed and "tiny" in printed.split("ship:")[1]
    fields = {"train_data": "clips.csv", "eval_data": "clips.csv", "max_steps": 1, "output_dir": "run",
              "eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": "false",
              "early_stopping_patience": "null"}  # fmt: skip
    run("mac-train", "own-data", *(f"--{name}={value}" for name, value in fields.items()))
    assert (tmp_path / "run" / "README.md").is_file()
    assert "a.wav\t" in run("mac-caption", "--model", "run", "a.wav")


def test_it_publishes(run, tmp_path, model):
    token = "hf_" + "x" * 30
    hub = HubStandIn({token: "user"})
    with hub.running():
        environment = {**hub.environment(tmp_path / "home", token), "HF_HUB_OFFLINE": "0"}
        run("python", "-m", "training_mac.release.hub", model, "user/mac", **environment)
    assert "user/mac" in hub.repositories
