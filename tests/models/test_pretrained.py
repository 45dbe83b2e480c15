"""The download of VGG's weights, from a real server on this machine."""

from __future__ import annotations

import hashlib
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision

from srgan_dist.config.perceptual import VGG19Config
from srgan_dist.models import pretrained as module
from srgan_dist.models.build import build_features
from srgan_dist.models.pretrained import VGG, WeightsUnavailable, download_torchvision


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty torch.hub folder."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return tmp_path / "hub" / "checkpoints"


class Server:
    """A web server on this machine that serves one body slowly and counts the requests."""

    def __init__(self, body: bytes, *, status: int = 200) -> None:
        self.requests: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.requests.append(self.path)
                time.sleep(0.3)
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = False  # closing the server waits for its handlers
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.02,))

    def __enter__(self) -> Server:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.http.server_port}/{name}"


@pytest.fixture
def body() -> bytes:
    return b"weights" * 1000


def sha8(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()[:8]


def call_at_once(times: int) -> list[Path | WeightsUnavailable]:
    results: list[Path | WeightsUnavailable] = []

    def call() -> None:
        try:
            results.append(download_torchvision("vgg19"))
        except WeightsUnavailable as error:
            results.append(error)

    threads = [threading.Thread(target=call) for _ in range(times)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@pytest.mark.parametrize("network", ["vgg16", "vgg19"])
def test_the_address_is_torchvisions(network: VGG) -> None:
    weights = torchvision.models.get_model_weights(network)["IMAGENET1K_V1"]
    assert weights.url == module.VGG_URLS[network]
    assert round(weights.meta["_file_size"]) == module.VGG_MEGABYTES[network]


def test_of_several_processes_one_downloads(hub: Path, body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"vgg19-{sha8(body)}.pth"
    with Server(body) as server:
        monkeypatch.setitem(module.VGG_URLS, "vgg19", server.url(name))
        assert call_at_once(4) == [hub / name] * 4
        assert server.requests == [f"/{name}"]
    assert (hub / name).read_bytes() == body
    assert download_torchvision("vgg19") == hub / name  # the server is gone
    assert not list(hub.glob("*.partial"))


def test_if_the_download_fails_the_others_do_not_try_again(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Server(b"", status=503) as server:
        monkeypatch.setitem(module.VGG_URLS, "vgg19", server.url("vgg19-00000000.pth"))
        results = call_at_once(3)
        assert len(server.requests) == 1
    assert all(isinstance(result, WeightsUnavailable) for result in results)
    assert not list(hub.glob("*.p*"))


def test_a_damaged_download_is_not_kept(hub: Path, body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    with Server(body) as server:
        monkeypatch.setitem(module.VGG_URLS, "vgg19", server.url("vgg19-dcbb9e9d.pth"))
        with pytest.raises(WeightsUnavailable, match=f"begins with {sha8(body)}, expected dcbb9e9d"):
            download_torchvision("vgg19")
    assert not list(hub.glob("*.p*"))


def test_without_network_one_line_says_what_to_do(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Port 9 of this machine: refused like any address of a machine without network.
    monkeypatch.setitem(module.VGG_URLS, "vgg19", "http://127.0.0.1:9/vgg19-dcbb9e9d.pth")
    with pytest.raises(WeightsUnavailable) as caught:
        build_features(VGG19Config(layers={"conv2_2": 1}))
    message = str(caught.value)
    assert "\n" not in message
    for part in (str(hub / "vgg19-dcbb9e9d.pth"), "srgan-dist fetch vgg19", "TORCH_HOME"):
        assert part in message
    for part in ("loss.perceptual.weights=PATH", "loss.perceptual.network=efficientnet_lite0"):
        assert part in message


def test_a_silent_server_is_given_up(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Server(b"late") as server:
        monkeypatch.setitem(module.VGG_URLS, "vgg19", server.url("vgg19-00000000.pth"))
        monkeypatch.setattr(module, "DOWNLOAD_TIMEOUT", 0.05)
        with pytest.raises(WeightsUnavailable, match="timed out"):
            download_torchvision("vgg19")
    assert not list(hub.glob("*.p*"))
