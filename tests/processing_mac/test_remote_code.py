"""
A saved folder brings its own code, which transformers copies flat, file by file, with a regular expression.

The first tests keep the packages in the shape that this needs; the last runs such a folder where they do not exist.
"""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
import torch

from modeling_mac import MacForConditionalGeneration
from processing_mac import AudioCaptioningPipeline


ROOT = Path(__file__).parents[2]
PACKAGES = ("modeling_mac", "processing_mac")
FILES = [path for package in PACKAGES for path in sorted((ROOT / package).glob("*.py"))]
MODULES = [path for path in FILES if path.name != "__init__.py"]
# They stand on top of both packages and do not travel.
APPLICATIONS = {"cli_mac.py", "caption_options_mac.py", "convert_cli_mac.py"}


def name_of(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def imports_of(path: Path) -> list[ast.Import | ast.ImportFrom]:
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, (ast.Import, ast.ImportFrom))]


def test_packages_have_no_folders_and_no_name_twice():
    assert len(MODULES) == len({path.name for path in MODULES}) > 10
    for package in PACKAGES:
        assert not list((ROOT / package).glob("*/*.py"))


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_own_files_are_imported_by_from_sibling_import_name(path):
    siblings = {sibling.stem for sibling in path.parent.glob("*.py")}
    for node in imports_of(path):
        if isinstance(node, ast.ImportFrom) and node.level:
            assert node.level == 1 and node.module in siblings, ast.unparse(node)
            assert all(alias.name != "*" for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_the_regular_expression_sees_what_python_sees(path):
    """No import in a docstring or a comment, none that it would miss."""
    seen = re.findall(r"^\s*from\s+\.(\S+)\s+import|^\s*import\s+\.(\S+)", path.read_text(), flags=re.MULTILINE)
    real = [node.module for node in imports_of(path) if isinstance(node, ast.ImportFrom) and node.level]
    assert sorted(found or other for found, other in seen) == sorted(real)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_own_imports_are_not_tried(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Try):
            assert not any(isinstance(child, ast.ImportFrom) and child.level for child in ast.walk(node))


@pytest.mark.parametrize("path", [path for path in FILES if path.name not in APPLICATIONS], ids=name_of)
def test_packages_do_not_import_each_other(path):
    for node in imports_of(path):
        if not getattr(node, "level", 0):
            names = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            assert not {name.split(".")[0] for name in names} & {*PACKAGES, "evaluation_mac", "training_mac"}


@pytest.mark.parametrize("package", PACKAGES)
def test_init_defines_no_classes(package):
    tree = ast.parse((ROOT / package / "__init__.py").read_text())
    assert not any(isinstance(node, (ast.ClassDef, ast.FunctionDef)) for node in ast.walk(tree))


@pytest.fixture
def released(model, processor, sound, tmp_path) -> Path:
    """A folder as it goes to the Hub, beside a recording."""
    captioner = AudioCaptioningPipeline(model, processor=processor, device="cpu")
    captioner.save_pretrained(tmp_path / "released")
    soundfile.write(tmp_path / "dog.wav", sound(12), 16_000)
    return tmp_path / "released"


def test_the_folder_holds_the_code_it_needs_and_no_other(released):
    saved = {path.name for path in released.glob("*.py")}
    originals = {path.name: path for path in MODULES}
    for name in saved:
        assert (released / name).read_bytes() == originals[name].read_bytes()
        needed = {f"{node.module}.py" for node in imports_of(originals[name]) if getattr(node, "level", 0)}
        assert needed <= saved
    assert {"modeling_mac.py", "processing_mac.py", "feature_extraction_mac.py", "pipeline_mac.py"} <= saved
    assert not {"cli_mac.py", "dataset_mac.py", "convert_cli_mac.py"} & saved
    assert not [name for name in saved if name.startswith(("conversion_", "weight_files_", "stream_cli_", "loading_"))]


STRANGER = """
import json, sys

class Absent:
    \"\"\"Hides the packages, should this Python have them installed.\"\"\"
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("modeling_mac", "processing_mac"):
            raise ModuleNotFoundError(f"No module named {name!r}")

sys.meta_path.insert(0, Absent())
from transformers import AutoModelForMultimodalLM, AutoProcessor, pipeline

folder, audio, again = sys.argv[1:]
captions = []
captioner = pipeline("audio-captioning", model=folder, device="cpu", trust_remote_code=True)
captions.append(captioner(audio, num_beams=2, return_segments=True))
model = AutoModelForMultimodalLM.from_pretrained(folder, trust_remote_code=True)
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
inputs = processor(audio)
tokens = model.generate(**inputs)
captions.append(processor.decode(tokens[0, inputs["input_ids"].shape[1]:]))
try:
    type(model).from_towers("eat.pt", "mamba2")
except ImportError as error:
    assert "pip install mamba-audio-captioning" in str(error)
else:
    raise AssertionError("from_towers found a package that is not there")

# What somebody saves who trained on: by the model and the processor, or by the pipeline.
model.save_pretrained(again + "/plain")
processor.save_pretrained(again + "/plain")
captioner.save_pretrained(again + "/pipeline")
for saved in ("/plain", "/pipeline"):
    captioner = pipeline("audio-captioning", model=again + saved, device="cpu", trust_remote_code=True)
    captions.append(captioner(audio, num_beams=2, return_segments=True))
assert all(name.split(".")[0] not in ("modeling_mac", "processing_mac") for name in sys.modules)
print(json.dumps(captions))
"""


def test_a_process_without_the_packages_captions_and_saves_again(released, model, processor, tmp_path):
    audio = str(tmp_path / "dog.wav")
    command = [sys.executable, "-I", "-c", STRANGER, str(released), audio, str(tmp_path / "again")]
    env = {**os.environ, "HF_HOME": str(tmp_path / "cache"), "HF_MODULES_CACHE": str(tmp_path / "cache" / "modules")}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    captioner = AudioCaptioningPipeline(model, processor=processor, device="cpu")
    with_segments = captioner(audio, num_beams=2, return_segments=True)
    plain = captioner(audio)[0]["caption"]
    assert json.loads(done.stdout.splitlines()[-1]) == [with_segments, plain, with_segments, with_segments]


LOADER = STRANGER[: STRANGER.index("folder, audio, again")] + (
    "import torch\n"
    "model = AutoModelForMultimodalLM.from_pretrained(sys.argv[1], trust_remote_code=True)\n"
    "torch.manual_seed(0)\n"
    "ids = torch.full((1, model.config.audio_tokens_per_window + 3), model.config.audio_token_id)\n"
    "ids[:, -3:] = 7\n"
    "logits = model(input_ids=ids, input_features=torch.randn(1, 1024, 128)).logits\n"
    "print(json.dumps([logits.abs().sum().item(), type(model.model.connector).__module__]))\n"
)


TRANSFORMER = {"model_type": "llama", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
               "intermediate_size": 64, "vocab_size": 300}  # fmt: skip


@pytest.mark.parametrize(
    "fields",
    [
        {"connector_type": "scan", "modality_projections": ["in_proj", "out_proj"]},
        {"connector_type": "gated_cnn"},
        {"text_config": {"model_type": "mac_discrete_mamba2", "source": TRANSFORMER, "attention_layers": [1]}},
    ],
    ids=["scan", "gated_cnn", "mohawk"],
)
def test_a_process_without_the_packages_runs_every_mode(fields, make_config, tmp_path):
    torch.manual_seed(0)
    model = MacForConditionalGeneration(make_config(**fields)).eval()
    model.save_pretrained(tmp_path / "saved")
    env = {**os.environ, "HF_HOME": str(tmp_path / "cache"), "HF_MODULES_CACHE": str(tmp_path / "cache" / "modules")}
    command = [sys.executable, "-I", "-c", LOADER, str(tmp_path / "saved")]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    total, module = json.loads(done.stdout.splitlines()[-1])
    torch.manual_seed(0)
    ids = torch.full((1, model.config.audio_tokens_per_window + 3), model.config.audio_token_id)
    ids[:, -3:] = 7
    logits = model(input_ids=ids, input_features=torch.randn(1, 1024, 128)).logits
    assert total == pytest.approx(logits.abs().sum().item(), rel=1e-5) and module.startswith("transformers_modules")
