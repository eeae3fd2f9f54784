"""The page in a real browser, on a desk and on a phone: what a visitor sees is what the package says."""

import json
import sys
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import av
import numpy as np
import pytest
import soundfile

from demo_mac.answers import describe, rank_labels
from demo_mac.cli import DEFAULT_EXAMPLES
from processing_mac import DEFAULT_MODEL, load_captioner


pytestmark = pytest.mark.slow
LABELS = "a dog is barking\nrain is falling\na clock is ticking"
PATIENCE = 120  # seconds, on a busy machine
SIZES = {"desk": (1280, 1000), "phone": (390, 844)}
AXE = Path(sys.prefix) / "node_modules" / "axe-core" / "axe.min.js"
IN_VIEW = """const { top, bottom } = arguments[0].getBoundingClientRect();
return bottom - top > 0 && top >= 0 && Math.min(bottom, top + 120) <= innerHeight"""


@pytest.fixture(scope="module")
def captioner():
    return load_captioner(DEFAULT_MODEL, device="cpu")


@pytest.fixture(params=SIZES)
def size(request):
    return request.param


@pytest.fixture
def visit(browser, page_address):
    """The page, opened anew on a desk, with the few things that a visitor does."""
    with on_screen(browser, "desk"):
        browser.get(page_address)
        yield Visit(browser)


@pytest.fixture
def visit_at(browser, page_address, size):
    """The page, opened anew on a desk or a phone."""
    with on_screen(browser, size):
        browser.get(page_address)
        yield Visit(browser)


@contextmanager
def on_screen(browser, size, color="light"):
    """A screen of some size, and what its owner likes better, light or dark."""
    width, height = SIZES[size]
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": size == "phone"}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": color}]}
    )
    try:
        yield
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


class Visit:
    """A visitor."""

    def __init__(self, browser):
        self.browser = browser
        self.wait_for("#describe")

    def wait_until(self, condition):
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.browser, PATIENCE, ignored_exceptions=[IndexError]).until(lambda _: condition())

    def find(self, selector):
        return self.browser.find_elements("css selector", selector)

    def wait_for(self, selector):
        return self.wait_until(lambda: self.find(selector)[0])

    def run(self, script, *arguments):
        return self.browser.execute_script(script, *arguments)

    def upload(self, path):
        self.wait_for("#sound input[type=file]").send_keys(str(path))
        self.wait_for("#sound button[aria-label='Clear']")

    def press(self, button):
        self.wait_for(button).click()

    def press_words(self, words):
        self.wait_until(lambda: next((one for one in self.find("button") if one.text == words), None)).click()

    def read_caption(self):
        """The caption of this visitor's own sound."""
        return self.wait_until(
            lambda: "example" not in self.find("#caption")[0].text and self.find("#caption .said")[0].text
        )

    def read_problem(self):
        return self.wait_until(lambda: self.find("#caption .problem")[0].text)

    def find_faults(self):
        """What axe-core finds to be a serious fault of accessibility."""
        if not AXE.is_file():
            pytest.skip(f"needs axe-core: npm install --prefix {sys.prefix} axe-core")
        self.run(AXE.read_text(encoding="utf-8"))
        found = self.browser.execute_async_script("axe.run().then(arguments[0])")["violations"]
        return [
            (fault["id"], fault["nodes"][0]["html"]) for fault in found if fault["impact"] in ("serious", "critical")
        ]


@pytest.fixture(scope="module")
def make_recording(captioner, tmp_path_factory):
    """Writes a recording of so many seconds, made of examples, as a file of any format."""
    folder = tmp_path_factory.mktemp("recordings")

    def make(name: str, seconds: float) -> Path:
        extractor = captioner.processor.feature_extractor
        clips = [extractor.load(str(DEFAULT_EXAMPLES / one))[0] for one in ("thunderstorm.ogg", "crying_baby.mp3")]
        waveform = np.resize(np.concatenate([np.resize(clip, 10 * 16_000) for clip in clips]), int(seconds * 16_000))
        path = folder / name
        if path.suffix != ".m4a":
            soundfile.write(path, waveform, 16_000)
            return path
        with av.open(path, "w") as file:
            stream = file.add_stream("aac", rate=16_000, layout="mono")
            for begin in range(0, len(waveform) - 1023, 1024):
                frame = av.AudioFrame.from_ndarray(waveform[None, begin : begin + 1024], "fltp", "mono")
                frame.sample_rate, frame.pts = 16_000, begin
                file.mux(stream.encode(frame))
            file.mux(stream.encode(None))
        return path

    return make


@pytest.mark.parametrize(
    ("name", "size"), [("sound.wav", "phone"), ("sound.mp3", "desk"), ("sound.m4a", "phone")], indirect=["size"]
)
def test_an_uploaded_sound_is_captioned_in_view(name, visit_at, captioner, make_recording):
    path = make_recording(name, 5.3)
    visit_at.upload(path)
    visit_at.press("#describe")
    assert visit_at.read_caption() == describe(captioner, str(path)).caption
    visit_at.wait_until(lambda: visit_at.run(IN_VIEW, visit_at.find("#caption .said")[0]))
    image = visit_at.wait_for("#picture .mel img")
    assert visit_at.wait_until(lambda: image.get_property("naturalWidth") > 100)
    assert [tick.text for tick in visit_at.find("#picture .time span")] == ["0", "1", "2", "3", "4", "5"]
    assert visit_at.run("return document.documentElement.scrollWidth <= innerWidth")


def test_three_minutes_are_told_segment_by_segment(visit_at, captioner, make_recording):
    """Every segment can be read, pressed and heard, and the playhead moves with the sound."""
    path = make_recording("three_minutes.mp3", 180)
    expected = describe(captioner, str(path))
    visit_at.upload(path)
    visit_at.press("#describe")
    assert visit_at.read_caption() == expected.caption
    rows = visit_at.wait_until(lambda: visit_at.find("#picture .segments button"))
    assert [row.text.split("\n")[-1] for row in rows] == [segment["caption"] for segment in expected.segments]
    assert all(row.is_displayed() for row in rows) and len(rows) > 3
    assert visit_at.run("return document.documentElement.scrollWidth <= innerWidth")

    lane, boxes = visit_at.find("#picture .lane")[0].rect, visit_at.find("#picture .lane div")
    for box, segment in zip(boxes, expected.segments, strict=True):
        assert box.rect["x"] - lane["x"] == pytest.approx(segment["start"] / 180 * lane["width"], abs=2)

    rows[1].click()
    start = expected.segments[1]["start"]
    sound = visit_at.find("#picture audio")[0]
    visit_at.wait_until(lambda: sound.get_property("currentTime") > start + 0.3)
    assert rows[1].get_attribute("aria-current") == "true" and rows[0].get_attribute("aria-current") is None
    head = float(visit_at.run("return document.querySelector('.recording').style.getPropertyValue('--at')"))
    assert head == pytest.approx(sound.get_property("currentTime") / 180, abs=0.01) and head > start / 180
    names = [link.get_attribute("download") for link in visit_at.find(".downloads a") if link.is_displayed()]
    assert names == [f"three_minutes{end}" for end in (".srt", ".vtt", ".csv", ".txt")]

    said = visit_at.find("#caption .said")[0]  # that of an hour scrolls, lest the timeline is out of a phone's screen
    visit_at.run("arguments[0].textContent = arguments[0].textContent.repeat(20)", said)
    assert said.rect["height"] <= 0.4 * visit_at.run("return innerHeight") + 1
    assert said.get_property("scrollHeight") > said.get_property("clientHeight")


def test_the_timeline_of_a_minute_has_words(visit_at, make_recording):
    """Also on a phone, where each segment has the room of a word or two a line."""
    visit_at.upload(make_recording("minute.mp3", 60))
    visit_at.press("#describe")
    visit_at.read_caption()
    visit_at.wait_until(lambda: len(visit_at.find("#picture .lane span")) > 3)
    lane = visit_at.find("#picture .lane")[0].rect
    for words in (span.rect for span in visit_at.find("#picture .lane span")):
        assert words["height"] > 0 and lane["y"] <= words["y"]
        assert words["y"] + words["height"] <= lane["y"] + lane["height"]


def test_a_segment_ends_where_the_next_begins(visit, make_recording):
    visit.upload(make_recording("three_minutes.mp3", 180))
    visit.press("#describe")
    visit.read_caption()
    visit.wait_until(lambda: visit.find("#picture .segments button"))[0].click()
    sound = visit.find("#picture audio")[0]
    end = float(visit.find("#picture .segments button")[0].get_attribute("data-end"))
    visit.wait_until(lambda: not sound.get_property("paused"))
    visit.run("arguments[0].currentTime = arguments[1]", sound, end - 0.5)
    visit.wait_until(lambda: sound.get_property("paused"))
    assert sound.get_property("currentTime") == pytest.approx(end, abs=0.3)


def test_the_page_opens_with_an_example(visit, captioner):
    """No half of it is empty, and it is told whose answer that is."""
    example = sorted(DEFAULT_EXAMPLES.glob("*.ogg"))[-1]
    assert visit.wait_for("#caption .said").text == describe(captioner, str(example)).caption
    assert visit.find("#caption .note")[0].text == "For example: thunderstorm"
    assert "mac-small" in visit.find("#top")[0].text and "voices, music" in visit.find("#top")[0].text
    assert not visit.find("#prompt")  # this model knows one


def test_an_example_answers_at_once_and_its_labels_on_a_press(visit, captioner):
    visit.press_words("clock tick")
    path = str(DEFAULT_EXAMPLES / "clock_tick.wav")
    assert visit.read_caption() == describe(captioner, path).caption
    assert not visit.find("#ranking li")  # those of the sound before do not stand beside this one
    box = visit.wait_for("#labels textarea")
    box.clear()
    box.send_keys(LABELS)
    visit.press("#rank")
    rows = visit.wait_until(lambda: visit.find("#ranking li"))
    expected = rank_labels(captioner, path, "", LABELS)
    ranked = sorted(expected, key=expected.__getitem__, reverse=True)
    assert [row.text.split("\n")[0] for row in rows] == ranked
    assert rows[0].text.split("\n")[1] == f"{expected[ranked[0]]:.0%}"


def test_what_went_wrong_stands_in_place_of_the_answer_and_goes_with_the_next(visit_at, captioner, tmp_path):
    visit_at.press("#describe")
    assert "There is no sound yet" in visit_at.read_problem()
    visit_at.wait_until(lambda: visit_at.run(IN_VIEW, visit_at.find("#caption .problem")[0]))

    (tmp_path / "<b>notes.wav").write_bytes(b"no sound at all")
    visit_at.upload(tmp_path / "<b>notes.wav")
    visit_at.press("#describe")
    visit_at.wait_until(lambda: "cannot be read as audio" in visit_at.read_problem())
    assert "notes.wav" in visit_at.read_problem() and not visit_at.find("#caption .said")
    assert "Traceback" not in visit_at.browser.page_source and str(tmp_path) not in visit_at.browser.page_source

    visit_at.press("#sound button[aria-label='Clear']")
    visit_at.upload(DEFAULT_EXAMPLES / "thunderstorm.ogg")
    visit_at.press("#describe")
    expected = describe(captioner, str(DEFAULT_EXAMPLES / "thunderstorm.ogg")).caption
    assert visit_at.read_caption() == expected
    assert not visit_at.find(".problem") and not visit_at.find(".toast-body")
    copy = visit_at.find("#caption .copy")[0]
    assert visit_at.run(
        "const { x, y, width, height } = arguments[0].getBoundingClientRect();"
        "return document.elementFromPoint(x + width / 2, y + height / 2) === arguments[0]", copy,
    )  # fmt: skip


def test_a_file_that_is_too_large_is_told_of_until_the_next_action(visit, tmp_path):
    with open(tmp_path / "night.wav", "wb") as file:
        file.truncate(101 * 2**20)
    visit.wait_for("#sound input[type=file]").send_keys(str(tmp_path / "night.wav"))
    message = visit.wait_until(lambda: visit.find(".toast-body")[0].text)
    assert "100.0 Mb" in message and "night.wav" in message
    visit.press_words("siren")
    visit.wait_until(lambda: not visit.find(".toast-body"))


def test_a_microphone_is_heard_live(visit, captioner):
    """The browser's stand-in for a microphone plays a clock's ticking."""
    visit.press_words("Live")
    visit.press_words("Listen")
    first = visit.wait_until(lambda: visit.find("#heard li span")[0].text)
    visit.press_words("Stop")
    visit.wait_for("#heard .downloads")
    assert "clock" in first and visit.find("#heard time")[0].text.startswith("0:00–")
    assert visit.find("#microphone button")[0].text == "Listen"


def test_a_caption_is_copied_where_there_is_no_clipboard(visit):
    """As on a page at http:// of another machine."""
    caption = visit.wait_for("#caption .said").text
    visit.run("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    visit.run("document.addEventListener('copy', () => { window.copied = getSelection().toString(); })")
    visit.press("#caption .copy")
    visit.wait_until(lambda: visit.find("#caption .copy")[0].text == "Copied")
    assert visit.run("return window.copied").strip() == caption


def test_a_double_click_opens_one_microphone(visit):
    """Clicks while it is being opened do nothing, and after Stop none of it is left open."""
    visit.press_words("Live")
    visit.run(
        """window.opened = [];
        const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
        navigator.mediaDevices.getUserMedia = async (asked) => {
          const stream = await open(asked);
          opened.push(...stream.getTracks());
          return stream;
        };
        const add = AudioWorklet.prototype.addModule;
        AudioWorklet.prototype.addModule = async function (url) {
          document.querySelector("#microphone button").click();
          return add.call(this, url);
        };
        const button = document.querySelector("#microphone button");
        button.click();
        button.click();"""
    )
    visit.press_words("Stop")
    assert visit.run("return opened.map((track) => track.readyState)") == ["ended"]


def test_a_microphone_stops_when_the_answer_is_a_problem(visit):
    """As after an hour, or where there is no room; what was the matter stays to be read."""
    visit.press_words("Live")
    visit.run("window.btoa = () => 'no samples'")
    visit.press_words("Listen")
    assert "does not read" in visit.wait_for("#heard .problem").text
    visit.wait_until(lambda: visit.find("#microphone button")[0].text == "Listen")
    visit.wait_until(lambda: not visit.find("#heard .busy"))  # it has ended
    assert "does not read" in visit.find("#heard .problem")[0].text


def test_a_microphone_that_cannot_be_heard_is_let_go(visit):
    visit.press_words("Live")
    visit.run(
        """const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
        navigator.mediaDevices.getUserMedia = async (asked) => (window.opened = await open(asked));
        AudioWorklet.prototype.addModule = async () => { throw new Error("none"); };"""
    )
    visit.press_words("Listen")
    visit.wait_for("#heard .problem")
    assert visit.run("return opened.getTracks().map((track) => track.readyState)") == ["ended"]


@pytest.mark.parametrize("color", ["light", "dark"])
def test_accessible(color, browser, page_address, size, make_recording):
    """At the start, with a long answer, with a problem, and live."""
    with on_screen(browser, size, color):
        browser.get(page_address)
        visit = Visit(browser)
        visit.wait_for("#caption .said")
        assert visit.find_faults() == []
        region = visit.find("#caption [role=status]")[0]
        assert (region.get_attribute("aria-live"), region.accessible_name) == ("polite", "Caption")
        visit.press("#describe")
        visit.read_problem()
        assert visit.find_faults() == []
        assert visit.find("#caption [role=status]")[0] == region  # what changes is its text
        visit.upload(make_recording("minute.mp3", 60))
        visit.press("#describe")
        visit.read_caption()
        visit.wait_until(lambda: visit.find("#picture .segments button"))[0].click()
        assert visit.find_faults() == []
        visit.press_words("Live")
        visit.wait_until(lambda: visit.find("#microphone button")[0].is_displayed())
        assert visit.find_faults() == []


def test_the_keyboard_alone(visit, captioner):
    """Tabs go through the page in the order in which it is read; Enter chooses an example and plays nothing else."""
    from selenium.webdriver import ActionChains, Keys

    seen = []
    for _ in range(40):
        ActionChains(visit.browser).send_keys(Keys.TAB).perform()
        focused = visit.browser.switch_to.active_element
        seen.append(focused.get_attribute("id") or focused.text or focused.accessible_name or focused.tag_name)
        if focused.text == "siren":
            outline = focused.value_of_css_property("outline-style")
            ActionChains(visit.browser).send_keys(Keys.ENTER).perform()
            break
    assert outline != "none"  # one sees where one is
    assert seen.index("A recording") < seen.index("describe") < seen.index("siren")
    assert visit.read_caption() == describe(captioner, str(DEFAULT_EXAMPLES / "siren.opus")).caption


def test_the_page_asks_nobody_else(visit):
    """Fonts, scripts and statistics: all of it from the server itself."""
    visit.browser.get_log("performance")
    visit.browser.refresh()
    visit.wait_for("#describe")
    visit.upload(DEFAULT_EXAMPLES / "cat.flac")
    visit.press("#describe")
    visit.read_caption()
    messages = [json.loads(entry["message"])["message"] for entry in visit.browser.get_log("performance")]
    urls = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert len(urls) > 10
    assert {urlsplit(url).hostname for url in urls if not url.startswith(("data:", "blob:"))} == {"127.0.0.1"}
