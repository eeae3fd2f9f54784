"""
The pictures of the page of `mac-demo` in docs/demo/, on four screens, light and dark. They need Chromium and selenium.

    mac-demo --port 7860                                                  # in another window
    python docs/make_demo_pictures.py http://127.0.0.1:7860 docs/demo examples/speech.flac examples/music.mp3 \
        examples/thunderstorm.ogg examples/crying_baby.mp3 examples/singing.ogg examples/clock_tick.wav

The page is shown with one recording, in which each of those that are named goes on for a window of the model.
"""

import base64
import io
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from PIL import Image
from selenium import webdriver
from selenium.webdriver.support.ui import WebDriverWait

from processing_mac.audio_mac import load_waveform


WIDTHS = {390: 844, 768: 1024, 1280: 900, 1920: 1080}  # with heights, in pixels
COLORS = 96  # of a picture, which keeps it small
MOST_HEIGHT = 1700  # pixels
CROPPED_HEIGHT = 1150  # pixels of the one picture in README.md
PATIENCE = 120  # seconds
RATE, WINDOW = 16_000, 10.24  # Hz and seconds


def main(address: str, folder: Path, recordings: Sequence[str]) -> None:
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        recording = str(Path(scratch) / "a minute.wav")
        windows = [np.resize(load_waveform(one), int(WINDOW * RATE)) for one in recordings]
        soundfile.write(recording, np.concatenate(windows), RATE)
        take_all(address, recording, folder)


def take_all(address: str, recording: str, folder: Path) -> None:
    """Take the pictures of every screen, and the one of README.md."""
    options = webdriver.ChromeOptions()
    for flag in ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(flag)
    options.binary_location = shutil.which("chromium") or shutil.which("chromium-browser") or ""
    # By its path, so that selenium does not ask the network for a driver.
    chrome = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    for width, height in WIDTHS.items():
        for color in ("light", "dark"):
            show(chrome, width, height, color)
            describe(chrome, address, recording)
            save(take(chrome, width), folder / f"{width}-{color}.png")
    chrome.quit()
    page = Image.open(folder / "1280-light.png")
    page.crop((0, 0, page.width, CROPPED_HEIGHT)).save(folder / "page.png", optimize=True)


def show(chrome: Any, width: int, height: int, color: str) -> None:
    """Set the screen and what its owner likes better, light or dark."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    wish = {"features": [{"name": "prefers-color-scheme", "value": color}]}
    chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", wish)


def describe(chrome: Any, address: str, recording: str) -> None:
    """Open the page, have a recording described, and play its third segment for a moment."""

    def wait_for(selector: str) -> Any:
        return WebDriverWait(chrome, PATIENCE).until(lambda _: chrome.find_elements("css selector", selector))[0]

    chrome.get(address)
    wait_for("#sound input[type=file]").send_keys(str(Path(recording).resolve()))
    wait_for("#sound button[aria-label='Clear']")
    wait_for("#describe").click()
    wait_for("#picture .segments button")
    chrome.find_elements("css selector", "#picture .segments button")[2].click()
    WebDriverWait(chrome, PATIENCE).until(
        lambda _: chrome.find_elements("css selector", "#picture .segments [aria-current]")
    )
    chrome.execute_script("document.querySelector('#picture audio').pause(); document.activeElement.blur()")


def take(chrome: Any, width: int) -> Image.Image:
    """Take a picture of the page from its top."""
    height = min(chrome.execute_script("return document.documentElement.scrollHeight"), MOST_HEIGHT)
    clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
    shot = chrome.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
    return Image.open(io.BytesIO(base64.b64decode(shot["data"]))).convert("RGB")


def save(picture: Image.Image, file: Path) -> None:
    """Save a picture with few colours."""
    picture.quantize(COLORS, dither=Image.Dither.NONE).save(file, optimize=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
