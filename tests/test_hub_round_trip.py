"""
What is pushed captions elsewhere in the same words: pushed by one process, loaded by others that never heard of MAC.

Large files travel by LFS, in parts; Xet storage is not run.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from hub_stand_in import HubStandIn


ROOT = Path(__file__).parents[1]
CHECKPOINT = ROOT / "model_cards" / "mac-tiny"
AUDIO = ROOT / "examples" / "music.mp3"
TOKEN = "hf_" + "s3cret" * 5

AUTHOR = """
import json, sys
from huggingface_hub import HfApi
from peft import LoraConfig, get_peft_model
import torch
from modeling_mac import MacForConditionalGeneration
from processing_mac import AudioCaptioningPipeline, MacProcessor

folder, audio = sys.argv[1:]
model, processor = MacForConditionalGeneration.from_pretrained(folder), MacProcessor.from_pretrained(folder)

def make(model):
    return AudioCaptioningPipeline(model, processor=processor, task="audio-captioning", device="cpu")

captioner = make(model)
told = {"first": captioner(audio)[0]["caption"]}
told["hash"] = captioner.push_to_hub("by-pipeline", private=True).oid
HfApi().create_tag("user/by-pipeline", tag="v1")
model.push_to_hub("by-parts")
processor.push_to_hub("by-parts")

torch.manual_seed(0)
lora = LoraConfig(r=4, target_modules=["in_proj", "out_proj"], init_lora_weights=False)
adapted = get_peft_model(MacForConditionalGeneration.from_pretrained(folder), lora)
told["adapted"] = make(adapted.merge_and_unload())(audio)[0]["caption"]
torch.manual_seed(0)
get_peft_model(MacForConditionalGeneration.from_pretrained(folder), lora).push_to_hub("adapter")

with torch.no_grad():
    for parameter in model.model.connector.parameters():
        parameter.zero_()  # deaf
told["second"] = captioner(audio)[0]["caption"]
captioner.push_to_hub("by-pipeline", revision="try")
print(json.dumps(told))
"""

STRANGER = """
import json, os, sys, urllib.error, urllib.request

class Absent:
    \"\"\"Hides the packages, should this Python have them installed.\"\"\"
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("modeling_mac", "processing_mac", "evaluation_mac", "training_mac"):
            raise ModuleNotFoundError(f"No module named {name!r}")

sys.meta_path.insert(0, Absent())
from peft import PeftModel
from transformers import AutoModelForMultimodalLM, AutoProcessor, pipeline

audio, hash = sys.argv[1:]

def mark(name):
    try:
        urllib.request.urlopen(os.environ["HF_ENDPOINT"] + "/mark/" + name)
    except urllib.error.HTTPError:
        pass

def caption_by_pipeline(**where):
    captioner = pipeline("audio-captioning", "user/by-pipeline", device="cpu", trust_remote_code=True, **where)
    return captioner(audio)[0]["caption"]

def caption_by_parts(repo, adapter=None):
    model = AutoModelForMultimodalLM.from_pretrained(repo, trust_remote_code=True)
    if adapter:
        model = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    processor = AutoProcessor.from_pretrained(repo, trust_remote_code=True)
    inputs = processor(audio)
    return processor.decode(model.generate(**inputs)[0, inputs["input_ids"].shape[1]:])

told = {"default": caption_by_pipeline()}
mark("again")
told["again"] = caption_by_pipeline()
mark("rest")
told |= {name: caption_by_pipeline(revision=name) for name in ("v1", "try", hash)}
told["parts"] = caption_by_parts("user/by-parts")
told["adapted"] = caption_by_parts("user/by-pipeline", "user/adapter")
try:
    pipeline("audio-captioning", "user/by-pipeline", trust_remote_code=False)
except Exception as error:
    told["untrusted"] = str(error)
assert not [name for name in sys.modules if name.split(".")[0] in ("modeling_mac", "processing_mac")]
print(json.dumps(told))
"""

OFFLINE = """
import json, sys
from transformers import pipeline

captions, always = {}, {"device": "cpu", "trust_remote_code": True}
for revision in sys.argv[2:]:
    captioner = pipeline("audio-captioning", "user/by-pipeline", revision=revision, **always)
    captions[revision] = captioner(sys.argv[1])[0]["caption"]
print(json.dumps(captions))
"""


def run(arguments: list[str], environment: dict[str, str], folder: Path) -> tuple[str, str]:
    """Output and errors of a process that must end well, and tell all it does but the token."""
    done = subprocess.run(
        arguments,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert TOKEN not in done.stdout + done.stderr
    return done.stdout, done.stderr


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trip(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """The whole way: pushed by the author, loaded by a stranger, loaded again without a Hub."""
    folder = tmp_path_factory.mktemp("trip")
    hub = HubStandIn({TOKEN: "user"}, part_bytes=2_000_000)
    with hub.running():
        author = {**hub.environment(folder / "author", TOKEN), "PYTHONPATH": str(ROOT)}
        printed, logged = run([sys.executable, "-c", AUTHOR, str(CHECKPOINT), str(AUDIO)], author, folder)
        assert "Send: curl" in logged
        told = json.loads(printed.splitlines()[-1])
        pushing, hub.requests = hub.requests, []
        stranger = hub.environment(folder / "stranger", TOKEN)
        command = [sys.executable, "-I", "-c", STRANGER, str(AUDIO), told["hash"]]
        heard = json.loads(run(command, stranger, folder)[0].splitlines()[-1])
        yield SimpleNamespace(hub=hub, folder=folder, told=told, heard=heard, pushing=pushing, loading=hub.requests)


def test_the_words_are_the_same(trip: SimpleNamespace) -> None:
    told, heard = trip.told, trip.heard
    assert len({told["first"], told["second"], told["adapted"]}) == 3
    assert heard["default"] == heard["parts"] == told["first"] and heard["adapted"] == told["adapted"]


def test_branch_tag_and_hash(trip: SimpleNamespace) -> None:
    told, heard = trip.told, trip.heard
    assert heard["v1"] == heard[told["hash"]] == told["first"]
    assert heard["try"] == told["second"]


def test_without_trust_no_code_runs(trip: SimpleNamespace) -> None:
    assert "trust_remote_code=True" in trip.heard["untrusted"]


def test_large_files_went_in_parts(trip: SimpleNamespace) -> None:
    assert trip.hub.repositories["user/by-pipeline"].private and not trip.hub.repositories["user/by-parts"].private
    assert any(request.path.startswith("/api/complete/") for request in trip.pushing)
    weights = trip.hub.repositories["user/by-pipeline"].at("v1").files["model.safetensors"]
    assert weights.size == len(trip.hub.store[weights.sha256])


def test_a_second_load_downloads_nothing(trip: SimpleNamespace) -> None:
    paths = [request.path for request in trip.loading]
    first = trip.loading[: paths.index("/mark/again")]
    second = trip.loading[paths.index("/mark/again") + 1 : paths.index("/mark/rest")]

    def downloads(requests: list) -> list[str]:
        return [
            one.path for one in requests if one.method == "GET" and ("/resolve/" in one.path or one.server == "store")
        ]

    assert any(path.startswith("/content/") for path in downloads(first)) and len(downloads(first)) > 10
    assert second and downloads(second) == []


def test_the_token_went_to_the_api_alone(trip: SimpleNamespace) -> None:
    for request in trip.pushing + trip.loading:
        assert (request.server == "store") <= ("authorization" not in request.headers)
        assert TOKEN.encode() not in request.body and TOKEN not in request.path
    written = [path.read_bytes() for path in trip.folder.rglob("*") if path.is_file()]
    assert len(written) > 20 and not any(TOKEN.encode() in content for content in [*written, *trip.hub.store.values()])


def test_the_cache_serves_without_a_hub(trip: SimpleNamespace) -> None:
    count = len(trip.hub.requests)
    environment = trip.hub.environment(trip.folder / "stranger") | {"HF_HUB_OFFLINE": "1"}
    revisions = ["v1", "try"]
    printed, _ = run([sys.executable, "-I", "-c", OFFLINE, str(AUDIO), *revisions], environment, trip.folder)
    assert json.loads(printed.splitlines()[-1]) == {name: trip.heard[name] for name in revisions}
    assert len(trip.hub.requests) == count


def test_mac_caption_by_name_and_revision(trip: SimpleNamespace) -> None:
    environment = trip.hub.environment(trip.folder / "shell", TOKEN) | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "processing_mac.cli_mac", str(AUDIO), "--model", "user/by-pipeline"]
    printed, _ = run([*command, "--revision", "try"], environment, trip.folder)
    assert printed == f"{AUDIO}\t{trip.told['second']}\n"
