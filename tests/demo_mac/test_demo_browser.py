"""The page in a real browser: what a visitor sees is what the package says."""

import json
import re
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import soundfile

from demo_mac.answers import rank_labels
from processing_mac import DEFAULT_MODEL, load_captioner


pytestmark = pytest.mark.slow
EXAMPLES = Path(__file__).parents[2] / "examples"
LABELS = "a dog is barking\nrain is falling\na clock is ticking"
PATIENCE = 60  # seconds


@pytest.fixture(scope="module")
def captioner():
    return load_captioner(DEFAULT_MODEL, device="cpu", return_segments=True)


@pytest.fixture
def visit(browser, page_address):
    """The page, opened anew, with the few things that a visitor does."""
    browser.get(page_address)
    return Visit(browser)


class Visit:
    """A visitor."""

    def __init__(self, browser):
        self.browser = browser
        self.wait_for("#describe")

    def wait_until(self, condition):
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.browser, PATIENCE, ignored_exceptions=[IndexError]).until(lambda _: condition())

    @contextmanager
    def phone(self):
        """The same page on a narrow screen."""
        metrics = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        try:
            yield
        finally:
            self.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})

    def find(self, selector):
        return self.browser.find_elements("css selector", selector)

    def wait_for(self, selector):
        return self.wait_until(lambda: self.find(selector)[0])

    def upload(self, path):
        self.wait_for("#sound input[type=file]").send_keys(str(path))

    def press(self, button):
        self.wait_for(button).click()

    def read_caption(self):
        return self.wait_until(lambda: self.wait_for("#caption textarea").get_attribute("value"))

    def read_message(self):
        return self.wait_until(lambda: self.find(".toast-body")[0].text)


def test_an_uploaded_sound_is_captioned(visit, captioner):
    visit.upload(EXAMPLES / "cat.flac")
    visit.wait_for("#sound button[aria-label='Play']")
    visit.press("#describe")
    assert visit.read_caption() == captioner(str(EXAMPLES / "cat.flac"))[0]["caption"]
    image = visit.wait_for("#picture .mel img")
    assert visit.wait_until(lambda: image.get_property("naturalWidth") > 100)
    assert [tick.text for tick in visit.find("#picture .time span")] == ["0", "1", "2", "3", "4", "5"]


def test_a_long_recording_has_its_segments_on_the_time_axis(visit, captioner, tmp_path):
    """Three segments of 28 s: their captions below the picture where there is room for them, else in a list."""
    extractor = captioner.processor.feature_extractor
    clips = [extractor.load(str(EXAMPLES / name))[0] for name in ("thunderstorm.ogg", "thunderstorm.ogg", "cat.flac")]
    soundfile.write(tmp_path / "long.flac", np.resize(np.concatenate(clips), 28 * 16_000), 16_000)
    [expected] = captioner(str(tmp_path / "long.flac"))
    captions = [segment["caption"] for segment in expected["segments"]]
    visit.upload(tmp_path / "long.flac")
    visit.wait_for("#sound button[aria-label='Play']")
    visit.press("#describe")
    assert visit.read_caption() == expected["caption"]
    visit.wait_for("#picture .lane div")
    boxes, picture = visit.find("#picture .lane div"), visit.find("#picture .mel")[0].rect
    assert [box.text for box in boxes] == [f"{row}\n{caption}" for row, caption in enumerate(captions, start=1)]
    for box, segment in zip(boxes, expected["segments"], strict=True):
        assert box.rect["x"] - picture["x"] == pytest.approx(segment["start"] / 28 * picture["width"], abs=2)
    assert not visit.find("#picture ol")[0].is_displayed()

    with visit.phone():
        assert [box.text for box in boxes] == ["1", "2", "3"]
        rows = [row.text for row in visit.find("#picture li")]
        assert rows == [
            f"{segment['start']:.1f}–{segment['end']:.1f} s {segment['caption']}" for segment in expected["segments"]
        ]


def test_an_example_and_its_labels(visit, captioner):
    next(button for button in visit.find("button, .gallery-item") if button.text == "clock_tick.wav").click()
    visit.wait_for("#sound button[aria-label='Play']")
    box = visit.wait_for("#labels textarea")
    box.clear()
    box.send_keys(LABELS)
    visit.press("#rank")
    text = visit.wait_until(lambda: (shown := visit.find("#ranking")[0].text).count("%") == 3 and shown)
    expected = rank_labels(captioner, str(EXAMPLES / "clock_tick.wav"), "", LABELS)
    ranked = sorted(expected, key=expected.__getitem__, reverse=True)
    assert re.findall(r"\n(.+)\n(\d+)%", text) == [(label, f"{100 * expected[label]:.0f}") for label in ranked]


def test_wrong_input_gets_a_message_and_another_try(visit, captioner, tmp_path):
    visit.press("#describe")
    assert "There is no sound yet" in visit.read_message()
    visit.press(".toast-close")

    (tmp_path / "<b>notes.wav").write_bytes(b"no sound at all")
    visit.upload(tmp_path / "<b>notes.wav")
    visit.wait_for("#sound button[aria-label='Clear']")
    visit.press("#describe")
    message = visit.read_message()
    assert "notes.wav" in message and "cannot be read as audio" in message
    assert "Traceback" not in visit.browser.page_source and str(tmp_path) not in visit.browser.page_source
    visit.press(".toast-close")

    visit.press("#sound button[aria-label='Clear']")
    visit.upload(EXAMPLES / "thunderstorm.ogg")
    visit.wait_for("#sound button[aria-label='Play']")
    visit.press("#describe")
    assert visit.read_caption() == captioner(str(EXAMPLES / "thunderstorm.ogg"))[0]["caption"]


def test_nothing_is_wider_than_the_screen(visit):
    with visit.phone():
        visit.upload(EXAMPLES / "siren.opus")
        visit.wait_for("#sound button[aria-label='Play']")
        visit.press("#describe")
        visit.wait_for("#picture .mel img")
        assert visit.browser.execute_script("return document.documentElement.scrollWidth") == 390


def test_the_page_asks_nobody_else(visit):
    """Fonts, scripts and statistics: all of it from the server itself."""
    visit.browser.get_log("performance")
    visit.browser.refresh()
    visit.wait_for("#describe")
    visit.upload(EXAMPLES / "cat.flac")
    visit.wait_for("#sound button[aria-label='Play']")
    messages = [json.loads(entry["message"])["message"] for entry in visit.browser.get_log("performance")]
    urls = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert len(urls) > 10
    assert {urlsplit(url).hostname for url in urls if not url.startswith(("data:", "blob:"))} == {"127.0.0.1"}
