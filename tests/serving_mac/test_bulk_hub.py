"""Recordings and shards of captions in a repository of the Hub, by huggingface_hub's own file system."""

import json
import subprocess
import sys
from pathlib import Path

from hub_stand_in import HubStandIn


TOKEN = "hf_" + "s3cret" * 5
USER = """
import json
from huggingface_hub import HfApi
from serving_mac.bulk_files import ShardFolder, list_remote, open_remote

api = HfApi()
api.create_repo("user/sounds")
for name in ("b.wav", "a/c.flac", "notes.txt"):
    api.upload_file(path_or_fileobj=name.encode(), path_in_repo=name, repo_id="user/sounds")
told = {"found": list_remote("hf://user/sounds")}
with open_remote("hf://user/sounds/a/c.flac") as file:
    told["content"] = file.read().decode()
try:
    list_remote("hf://user/none")
except ValueError as error:
    told["error"] = str(error)
for names in ("ab", "c"):
    with ShardFolder("hf://user/sounds/captions", "parquet") as shards:
        told["done"] = sorted(shards.done)
        for name in names:
            shards.append({"audio": name, "caption": "A"})
        shards.fail("bad.wav", "no sound")
told["files"] = [name for name in api.list_repo_files("user/sounds") if name.startswith("captions/")]
print(json.dumps(told))
"""


def test_a_repository_is_read_and_written(tmp_path):
    hub = HubStandIn({TOKEN: "user"})
    with hub.running():
        environment = {**hub.environment(tmp_path, TOKEN), "PYTHONPATH": str(Path(__file__).parents[2])}
        done = subprocess.run(
            [sys.executable, "-c", USER], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300
        )
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["found"] == ["hf://user/sounds/a/c.flac", "hf://user/sounds/b.wav"]
    assert told["content"] == "a/c.flac" and told["done"] == ["a", "b"]
    assert "hf://user/none: cannot be listed" in told["error"]
    assert told["files"] == ["captions/failed.jsonl", "captions/part-00000.parquet", "captions/part-00001.parquet"]
