"""`mac-serve --ray`: OpenAI's client meets the same app on Ray Serve."""

import os
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai
import pytest

from processing_mac import DEFAULT_MODEL, load_captioner
from processing_mac.long_recordings_mac import join_captions


@pytest.mark.slow
def test_a_replica_serves_batches_and_ends_by_a_signal(sounds, tmp_path):
    options = ["--port", "0", "--ray", "--batch-wait", "1000", "--max-batch", "8", "--max-seconds", "100"]
    command = [sys.executable, "-m", "serving_mac.server_cli", *options]
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": root, "MAC_SERVE_TOKEN": "secret"}
    captioner = load_captioner(DEFAULT_MODEL, device="cpu")
    with (
        open(tmp_path / "errors", "wb") as errors,
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True) as server,
    ):
        try:
            [address] = re.findall(r"http://[\w.:]+", server.stdout.readline())
            client = openai.OpenAI(api_key="secret", base_url=f"{address}/v1", max_retries=0)
            ask = client.audio.transcriptions.create
            with ThreadPoolExecutor(6) as pool:
                told = list(pool.map(lambda file: ask(model="mac-small", file=file).text, sounds))
            assert told[:-1] == [captioner(str(file))[0]["caption"] for file in sounds[:-1]]
            segments = captioner(str(sounds[-1]), return_segments=True)[0]["segments"]  # more windows than trained on
            assert told[-1] == join_captions(segment["caption"] for segment in segments)
            long = sounds[-1].read_bytes() + b"\0\0" * 16_000 * 88  # 10 windows, more than a batch may read
            assert ask(model="mac-small", file=long, response_format="verbose_json").duration > 10
            *deltas, done = ask(model="mac-small", file=sounds[0], stream=True)
            assert "".join(event.delta for event in deltas) == done.text == told[0]
            with pytest.raises(openai.BadRequestError, match="cannot be read as audio"):
                ask(model="mac-small", file=b"no sound")
            with pytest.raises(openai.AuthenticationError):
                client.with_options(api_key="wrong").models.list()
            metrics = client.with_options(base_url=address).get("/metrics", cast_to=str)
            recordings, batches = (
                float(re.search(rf"^mac_batch_recordings_{name} (\S+)", metrics, re.MULTILINE)[1])
                for name in ("sum", "count")
            )
            assert recordings == 8 and batches < 6
        finally:
            server.send_signal(signal.SIGTERM)
            assert server.wait(60) == 0
    told = (tmp_path / "errors").read_text()
    assert "Traceback" not in told and "failed" not in told, told
