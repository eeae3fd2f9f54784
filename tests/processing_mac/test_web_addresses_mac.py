"""Addresses as people write them: other letters and spaces, what is no host, and passwords, which nobody else sees."""

import base64
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote

import pytest
import soundfile

from processing_mac.audio_mac import load_waveform
from processing_mac.segment_files_mac import SegmentFiles
from processing_mac.stream_cli_mac import read_address
from processing_mac.web_addresses_mac import hide_password, make_request


@pytest.fixture
def servers(tmp_path, sound):
    """Two servers that note what they are asked; `/to/…` leads to what follows, at the first or, `//`, elsewhere."""
    soundfile.write(tmp_path / "dog.wav", sound(2), 16_000)
    asked, running = [], []

    class Noting(BaseHTTPRequestHandler):
        def do_GET(self):
            whole = self.path.startswith("http://")  # as a proxy is asked
            path = "/" + self.path.split("/", 3)[3] if whole else self.path
            asked.append((self.server.server_port, path, self.headers["Authorization"]))
            leads = path.startswith("/to/")
            self.send_response(302 if leads else 200)
            if leads:
                onward = unquote(path[3:]).replace("//other", f"//127.0.0.1:{running[1].server_port}")
                self.send_header("Location", onward.encode().decode("latin-1"))  # not quoted, as many servers do
            self.end_headers()
            self.wfile.write(b"" if leads else (tmp_path / "dog.wav").read_bytes())

        def log_message(self, *arguments):
            pass

    for _ in range(2):
        running.append(ThreadingHTTPServer(("127.0.0.1", 0), Noting))
        threading.Thread(target=running[-1].serve_forever, args=(0.01,), daemon=True).start()
    yield SimpleNamespace(ports=[server.server_port for server in running], asked=asked)
    for server in running:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("url", "host", "selector"),
    [
        ("http://host/hündin 日.wav?größe=a b#part", "host", "/h%C3%BCndin%20%E6%97%A5.wav?gr%C3%B6%C3%9Fe=a%20b"),
        ("https://host:81/a%20b.wav?x=%C3%BC&y=1+2", "host:81", "/a%20b.wav?x=%C3%BC&y=1+2"),
        ("HTTP://Hündin.example/100%.wav", "xn--hndin-kva.example", "/100%.wav"),
        ("http://[::1]:8000/~me/(a),b;c.wav", "[::1]:8000", "/~me/(a),b;c.wav"),
        ("http://host/\udcff.wav", "host", "/%FF.wav"),
    ],
)
def test_an_address_is_quoted_as_browsers_do(url, host, selector):
    request = make_request(url)
    assert (request.host, request.selector) == (host, selector)


@pytest.mark.parametrize("path", ["hündin 日.wav", "to/hündin 日.wav"])
def test_other_letters_are_fetched_and_redirected_to(path, servers):
    assert len(load_waveform(f"http://127.0.0.1:{servers.ports[0]}/{path}")) == 32_000
    assert servers.asked[-1][1] == "/h%C3%BCndin%20%E6%97%A5.wav"


@pytest.mark.parametrize("host", ["example..com", ".com", "a" * 64 + ".com"])
def test_what_is_no_host_is_told_at_once(host, servers, monkeypatch):
    begin = time.monotonic()
    for url in (f"http://{host}/x.wav", f"http://127.0.0.1:{servers.ports[0]}/to//{host}/x.wav"):
        with pytest.raises(ValueError, match=f"{url}: cannot be fetched .*'{host}' is no name of a host"):
            load_waveform(url)
    with pytest.raises(ValueError, match=f"^http://{host}/x: '{host}' is no name of a host$"):
        next(read_address(f"http://{host}/x", 1, reconnect=True))
    monkeypatch.setenv("http_proxy", f"http://{host}:80")
    with pytest.raises(ValueError, match=r"http://host/x: cannot be fetched .*label"):
        load_waveform("http://host/x")
    assert time.monotonic() - begin < 5


def test_an_account_is_told_to_its_own_server_alone(servers):
    here, other = servers.ports
    account = f"Basic {base64.b64encode('anna:pä:ss'.encode()).decode()}"
    place = f"http://anna:p%C3%A4:ss@127.0.0.1:{here}"
    load_waveform(f"{place}/to/dog.wav")
    assert servers.asked == [(here, "/to/dog.wav", account), (here, "/dog.wav", account)]
    servers.asked.clear()
    load_waveform(f"{place}/to//other/dog.wav")
    assert servers.asked == [(here, "/to//other/dog.wav", account), (other, "/dog.wav", None)]
    servers.asked.clear()
    assert sum(map(len, read_address(f"{place}/dog.wav", 5, reconnect=False))) == 32_000
    assert servers.asked == [(here, "/dog.wav", account)]


def test_an_account_is_not_told_to_a_proxy_s_address(servers, monkeypatch):
    """Behind a proxy, urllib calls that the host; the account stays with the server, and a newer one is taken."""
    here, _ = servers.ports
    account, newer = (f"Basic {base64.b64encode(words).decode()}" for words in (b"anna:secret", b"new:two"))
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{here}")
    monkeypatch.delenv("no_proxy", raising=False)
    load_waveform("http://anna:secret@host.test/to/dog.wav")
    assert [asked[2] for asked in servers.asked] == [account, account]
    servers.asked.clear()
    load_waveform(f"http://anna:secret@host.test/to//127.0.0.1:{here}/dog.wav")
    assert [asked[2] for asked in servers.asked] == [account, None]
    servers.asked.clear()
    load_waveform("http://anna:secret@host.test/to//new:two@host.test/dog.wav")
    assert [asked[2] for asked in servers.asked] == [account, newer]


@pytest.mark.parametrize("host", ["h%2Fe", "h%3Fx", "h%23x", "a%40b", "h ", "h\\x", "h%3A80"])
def test_a_host_holds_no_other_part(host):
    with pytest.raises(ValueError, match="is no name of a host"):
        make_request(f"http://{host}/y")


def test_no_message_tells_a_password(servers):
    with pytest.raises(ValueError, match=r"^http://anna:\*\*\*@127\.0\.0\.1:1/x: cannot be fetched"):
        load_waveform("http://anna:s3cret@127.0.0.1:1/x")
    with pytest.raises(ValueError, match=r"^http://anna:\*\*\*@127\.0\.0\.1:1/x: .*refused"):
        next(read_address("http://anna:s3cret@127.0.0.1:1/x", 1, reconnect=False))
    for unchanged in ("http://host:80/a:b@c", "http://anna@host/x", "a:b@c.wav", "s3://a:b@c/d"):
        assert hide_password(unchanged) == unchanged
    assert hide_password("HTTPS://a:b@c@host/x") == "HTTPS://a:***@host/x"
    assert hide_password("http://anna@d.org:s3cret@host/x") == "http://anna@d.org:***@host/x"
    with pytest.raises(ValueError, match=r"written for http://anna:\*\*\*@a/x.wav and for http://anna:\*\*\*@b/x.wav"):
        SegmentFiles(Path("folder"), "srt", ["http://anna:s3cret@a/x.wav", "http://anna:s3cret@b/x.wav"])
