"""
Users of a running `mac-serve`, for locust: each sends one recording after the other and checks what comes back.

    pip install locust
    mac-serve --port 8000 &
    SOUNDS=examples locust -f benchmarks/serving_load.py --headless --only-summary --host http://127.0.0.1:8000 \
        --users 8 --spawn-rate 8 --run-time 2m --csv load
    BROKEN=0.05 LEAVING=0.05 SOUNDS=examples locust …     # a share of uploads breaks off, a share of clients leaves

A share of `BROKEN` uploads ends in the middle of the recording, and a share of `LEAVING` clients closes the connection
after the upload, before the answer. Neither counts as a request. All others must be answered, and always with
the same caption for the same recording, whatever batch it was in.
"""

import os
import random
import socket
import time
from pathlib import Path
from urllib.parse import urlsplit

from locust import FastHttpUser, events, task
from locust.env import Environment


BROKEN, LEAVING = (float(os.environ.get(name, "0")) for name in ("BROKEN", "LEAVING"))
MODEL = os.environ.get("MODEL", "mac-small")
SUFFIXES = (".flac", ".mp3", ".ogg", ".opus", ".wav")
SOUNDS = [path for path in sorted(Path(os.environ["SOUNDS"]).iterdir()) if path.suffix in SUFFIXES]
CAPTIONS: dict[Path, str] = {}  # the first answer for each recording
SPOILT = {"broken": 0, "left": 0}


class Client(FastHttpUser):
    """A client that asks again as soon as it has its caption."""

    @task
    def ask(self) -> None:
        """Send one recording, or spoil a request."""
        sound, chance = random.choice(SOUNDS), random.random()
        if chance < BROKEN + LEAVING:
            self.spoil(sound, share=0.6 if chance < BROKEN else 1.0)
            return
        body = {"model": MODEL}
        files = {"file": (sound.name, sound.read_bytes(), "application/octet-stream")}
        path = "/v1/audio/transcriptions"
        with self.client.post(path, data=body, files=files, catch_response=True) as response:
            if response.status_code != 200:
                response.failure(f"status {response.status_code}: {response.text}")
            elif CAPTIONS.setdefault(sound, response.json()["text"]) != response.json()["text"]:
                response.failure(f"{sound.name}: {response.json()['text']!r}, before {CAPTIONS[sound]!r}")

    def spoil(self, sound: Path, share: float) -> None:
        """Send a share of a request and close the connection."""
        form = f'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\n{MODEL}\r\n'
        form += '--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
        body = form.encode() + sound.read_bytes() + b"\r\n--b--\r\n"
        address = urlsplit(self.host)
        head = f"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Length: {len(body)}\r\n"
        head += "Content-Type: multipart/form-data; boundary=b\r\n\r\n"
        with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
            connection.sendall((head.encode() + body)[: round((len(head) + len(body)) * share)])
            time.sleep(random.uniform(0, 0.2))
        SPOILT["left" if share == 1 else "broken"] += 1


@events.quitting.add_listener
def tell(environment: Environment, **more: object) -> None:
    """Say how many requests were spoilt."""
    print(f"spoilt: {SPOILT['broken']} uploads broke off, {SPOILT['left']} clients left before the answer")
