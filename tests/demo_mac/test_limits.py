"""What is too much for the page, and what it says then."""

import asyncio
from pathlib import Path

import numpy as np
import pytest
import soundfile

from demo_mac import limits
from demo_mac.limits import MAX_FILE_BYTES, MAX_SECONDS, UploadLimits, decodable_seconds


FIELD = Path(__file__).parents[1] / "fixtures" / "field"


@pytest.fixture
def make_file(tmp_path):
    def make(seconds: float, rate: int = 16_000, channels: int = 1) -> str:
        path = tmp_path / "sound.flac"
        samples = np.random.default_rng(0).normal(0, 0.1, (int(seconds * rate), channels)).astype(np.float32)
        soundfile.write(path, samples, rate)
        return str(path)

    return make


def test_a_usual_recording_may_have_all_minutes(make_file):
    assert decodable_seconds(make_file(2, 48_000, 2), "sound.flac") == MAX_SECONDS


def test_rate_and_channels_count_before_anything_is_decoded(make_file, monkeypatch):
    """Eight channels at 192 kHz are twelve times a usual recording's numbers."""
    monkeypatch.setattr(limits, "MAX_VALUES", 192_000 * 8 * 2)
    monkeypatch.setattr("processing_mac.decoding_mac._to_floats", None)  # the first decoded frame would call it
    path = make_file(3, 192_000, 8)
    message = r"^sound.flac: 3 s long; this page takes up to 2 s at 192 kHz in 8 channels, and 10:00 min of a usual"
    with pytest.raises(ValueError, match=message):
        decodable_seconds(path, "sound.flac")


@pytest.mark.parametrize("name", ["xing_wrong_huge.mp3", "vbr_noxing.mp3"])
def test_a_length_that_the_file_cannot_hold_is_not_believed(name):
    assert decodable_seconds(str(FIELD / name), name) == MAX_SECONDS


def test_what_is_no_sound_is_told_of_later(tmp_path):
    (tmp_path / "notes.txt").write_text("no sound")
    assert decodable_seconds(str(tmp_path / "notes.txt"), "notes.txt") == MAX_SECONDS


class Upload:
    """A request with a body of two parts, and what it was answered."""

    def __init__(self, path: str = "/gradio_api/upload", length: int | None = 2000, method: str = "POST"):
        headers = [] if length is None else [(b"content-length", str(length).encode())]
        self.scope = {"type": "http", "method": method, "path": path, "headers": headers}
        self.parts = [
            {"type": "http.request", "body": b"a" * 1000, "more_body": True},
            {"type": "http.request", "body": b"a" * 1000, "more_body": False},
        ]
        self.status, self.text = 0, ""

    async def receive(self):
        return self.parts.pop(0)

    async def send(self, message):
        self.status = message.get("status", self.status)
        self.text += message.get("body", b"").decode()


@pytest.fixture
def try_upload(tmp_path):
    """Sends requests to an application that takes all of them: the number of those that reached it at a time."""

    def send(*uploads: Upload) -> int:
        inside, most = [], []

        async def app(scope, receive, send):
            inside.append(scope)
            most.append(len(inside))
            await asyncio.sleep(0.01)
            inside.pop()
            await send({"type": "http.response.start", "status": 200})

        async def run():
            limited = UploadLimits(app, tmp_path)
            await asyncio.gather(*(limited(one.scope, one.receive, one.send) for one in uploads))
            assert limited.expected == []

        asyncio.run(run())
        return max(most, default=0)

    return send


def test_an_upload_goes_through(try_upload):
    upload = Upload()
    assert try_upload(upload) == 1 and upload.status == 200


@pytest.mark.parametrize(
    ("length", "status", "message"),
    [
        (MAX_FILE_BYTES * 2, 413, "The file has 200 MB; this page takes up to 100 MB."),
        (None, 411, "must state its length"),
    ],
)
def test_one_file(length, status, message, try_upload):
    upload = Upload(length=length)
    assert try_upload(upload) == 0
    assert upload.status == status and message in upload.text and not upload.parts  # a browser wants to send it all


def test_open_uploads(try_upload, monkeypatch):
    monkeypatch.setattr(limits, "MAX_OPEN_UPLOADS", 2)
    uploads = [Upload() for _ in range(3)]
    assert try_upload(*uploads) == 2
    assert sorted(upload.status for upload in uploads) == [200, 200, 503]
    assert "2 other recordings are being sent" in uploads[2].text


def test_all_recordings_together(try_upload, tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "MAX_STORED_BYTES", 10_000)
    (tmp_path / "hash").mkdir()
    (tmp_path / "hash" / "sound.wav").write_bytes(bytes(7_000))
    uploads = [Upload(), Upload()]
    try_upload(*uploads)
    assert sorted(upload.status for upload in uploads) == [200, 507]


def test_other_requests_are_none_of_its_business(try_upload, monkeypatch):
    monkeypatch.setattr(limits, "MAX_OPEN_UPLOADS", 0)
    uploads = [Upload(path="/gradio_api/queue/join", length=10**10), Upload(method="GET")]
    try_upload(*uploads)
    assert [upload.status for upload in uploads] == [200, 200]
