"""OpenAI's embeddings, asked of a server of our own."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest

from evaluation_mac.metrics.text_encoder import load_encoder


pytest.importorskip("openai")


class Server(BaseHTTPRequestHandler):
    """Gives each sentence its length and a 3, in an order of its own."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        known = asked["model"] == "text-embedding-ada-002"
        rows = [
            {"object": "embedding", "index": place, "embedding": [float(len(text)), 3.0]}
            for place, text in enumerate(asked["input"])
        ]
        answer = {
            "object": "list",
            "model": asked["model"],
            "data": rows[::-1],
            "usage": {"prompt_tokens": 1, "total_tokens": 1},
        }
        body = json.dumps(answer if known else {"error": {"message": "no such model"}}).encode()
        self.send_response(200 if known else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def service(monkeypatch):
    server = HTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{server.server_port}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    yield
    server.shutdown()


def test_sentences_get_their_own_vectors(service) -> None:
    found = load_encoder("openai:text-embedding-ada-002").embed_text(["rain", "rain falls", "rain"])
    np.testing.assert_allclose(found, [[0.8, 0.6], np.array([10, 3]) / np.sqrt(109), [0.8, 0.6]], rtol=1e-6)


def test_what_the_service_refuses_is_told(service, monkeypatch) -> None:
    with pytest.raises(ValueError, match=r"openai:nothing: .*no such model"):
        load_encoder("openai:nothing").embed_text(["rain"])
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(ValueError, match=r"openai:text-embedding-ada-002: .*api_key"):
        load_encoder("openai:text-embedding-ada-002")
