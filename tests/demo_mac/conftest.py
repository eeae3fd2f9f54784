"""The real command at a free port, and a real browser."""

import os
import select
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest


ROOT = Path(__file__).parents[2]
START_SECONDS = 300  # on a busy machine
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --window-size=1280,1000 --autoplay-policy=no-user-gesture-required "
    "--use-fake-device-for-media-stream --use-fake-ui-for-media-stream "
    f"--use-file-for-fake-audio-capture={ROOT / 'examples' / 'clock_tick.wav'}"
)


def start_page(command: list[str], port: int, **environment: str) -> Iterator[str]:
    """Run a server until the tests are done with its address."""
    address = f"http://127.0.0.1:{port}/"
    process = subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )  # fmt: skip
    try:
        assert process.stdout and select.select([process.stdout], [], [], START_SECONDS)[0], "the page did not start"
        assert "mac-demo: http" in process.stdout.readline()
        yield address
    finally:
        process.terminate()
        process.wait(timeout=20)


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture(scope="session")
def page_address() -> Iterator[str]:
    """The page of the checkpoint that ships, as `mac-demo` serves it."""
    if find_spec("gradio") is None:
        pytest.skip("needs gradio: pip install -e .[demo]")
    port = free_port()
    yield from start_page(["-m", "demo_mac.cli", "--port", str(port), "--device", "cpu"], port)


@pytest.fixture(scope="session")
def browser(tmp_path_factory) -> Iterator[Any]:
    """Headless Chromium, with a log of what it asks the network for."""
    chromium, driver = shutil.which("chromium") or shutil.which("chromium-browser"), shutil.which("chromedriver")
    if find_spec("selenium") is None or not (chromium and driver):
        pytest.skip("needs selenium, and the programs chromium and chromedriver (Debian: chromium, chromium-driver)")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in [*FLAGS.split(), f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    chrome = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    chrome.set_page_load_timeout(60)
    yield chrome
    chrome.quit()
