"""A server with a tiny model on a free port of the loopback, in a thread of the test; an index of six recordings."""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import soundfile
import uvicorn
from openai import OpenAI

from processing_mac import AudioCaptioningPipeline
from processing_mac.long_recordings_mac import join_captions
from serving_mac import index_cli, search_cli
from serving_mac.index_folder import IndexFolder
from serving_mac.index_hearing import hear_files
from serving_mac.index_states import StateReader
from serving_mac.server_app import CaptionService, make_app
from serving_mac.server_options import ServerOptions


@pytest.fixture
def captioner(model, processor) -> AudioCaptioningPipeline:
    return AudioCaptioningPipeline(model, processor=processor, device="cpu")


@pytest.fixture
def sounds(tmp_path, sound) -> list[Path]:
    """Six recordings of 1 to 12 s, of which the last has two windows."""
    files = []
    for seed, seconds in enumerate([1, 3, 2, 5, 4, 12], start=1):
        files.append(tmp_path / f"{seed}.wav")
        soundfile.write(files[-1], sound(seconds, seed), 16_000)
    return files


@pytest.fixture
def hear(captioner) -> Callable[..., dict[str, Any]]:
    """Tells what `mac-caption` says of a recording: the segments, and what they say, each thing once."""

    def hear(file: Path, prompt: str | None = None) -> dict[str, Any]:
        [record] = captioner(str(file), return_segments=True, prompt=prompt)
        return record | {"caption": join_captions(segment["caption"] for segment in record["segments"])}

    return hear


class Served:
    """A running server: its service, its port, and a client of OpenAI's package that does not try again."""

    def __init__(self, service: CaptionService, port: int):
        self.service, self.port = service, port
        self.url = f"http://127.0.0.1:{port}"
        self.batches: list[int] = []
        service.batcher.on_batch = lambda jobs, seconds: self.batches.append(jobs)
        self.client = OpenAI(api_key=service.options.token or "none", base_url=f"{self.url}/v1", max_retries=0)

    def ask(self, file: Any, **fields: Any) -> Any:
        """Ask for a caption as users of OpenAI's client do."""
        return self.client.audio.transcriptions.create(**{"model": "tiny", "file": file, **fields})

    def wait_until_empty(self) -> None:
        """Wait until the server has let go of every request, for at most 30 s."""
        for _ in range(600):
            if not self.service.inside:
                return
            time.sleep(0.05)
        raise AssertionError(f"{self.service.inside} requests are still inside")


@pytest.fixture
def serve(captioner) -> Callable[..., Any]:
    """Serves the tiny model while a `with` block lasts; keyword arguments are the server's options."""

    @contextmanager
    def run(**options: Any) -> Iterator[Served]:
        service = CaptionService(captioner, ServerOptions(**{"name": "tiny", **options}))
        listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        server = uvicorn.Server(uvicorn.Config(make_app(service), log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        served = Served(service, listener.getsockname()[1])
        try:
            yield served
        finally:
            served.client.close()
            server.should_exit = True
            thread.join(10)
            listener.close()

    return run


@pytest.fixture
def collection(captioner, sounds, monkeypatch, tmp_path) -> Path:
    """The folder of six recordings, which is the working one; `mac-index` and `mac-search` get the tiny model."""
    for module in (index_cli, search_cli):
        monkeypatch.setattr(module, "load_captioner", lambda *_, **__: captioner)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def make_index(collection) -> Callable[..., IndexFolder]:
    """Runs `mac-index` on the collection, with further options; the index is its folder `index`."""

    def run(*options: str, expected: int = 0) -> IndexFolder:
        assert index_cli.main([".", "--output", "index", "--precision", "float32", *options]) == expected
        return IndexFolder(Path("index"))

    return run


@pytest.fixture
def heard(monkeypatch) -> list[str]:
    """The names of the files that `mac-index` hears."""
    names: list[str] = []

    def hear(reader, files, *rest):
        names.extend(os.path.basename(file) for file in files)
        return hear_files(reader, files, *rest)

    monkeypatch.setattr(index_cli, "hear_files", hear)
    return names


@pytest.fixture
def named(make_index, monkeypatch) -> IndexFolder:
    """An index whose captions are known."""
    hear = StateReader.hear
    said = iter(["rain falls on a roof", "a dog barks", "a dog barks", "a bell rings twice", "", "a bird", "the rain"])

    def say(reader, features, num_beams=None):
        _, losses, states = hear(reader, features, num_beams)
        return [next(said) for _ in losses], losses, states

    monkeypatch.setattr(StateReader, "hear", say)
    return make_index("--batch-size", "1")
