"""Fetching weights: from a server on this machine, good, bad, cut off and not there at all."""

import hashlib
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import xxhash

from napari_sam.errors import DownloadError, ModelNotFoundError
from napari_sam.inference import registry
from napari_sam.inference.download import fetch
from napari_sam.inference.registry import MODELS, fetch_model, find_model, is_on_disk, model_file

CONTENT = b"weights" * 5000
SHA = "sha256:" + hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        kind = self.path.strip("/")
        if kind == "missing":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        if kind == "cut":
            self.wfile.write(CONTENT[:1000])
            self.close_connection = True
        else:
            self.wfile.write(CONTENT if kind == "good" else CONTENT[::-1])

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}/"
        http.shutdown()
        thread.join()


@pytest.mark.parametrize(
    "known",
    [
        SHA,
        "md5:" + hashlib.md5(CONTENT).hexdigest(),
        "xxh128:" + xxhash.xxh3_128_hexdigest(CONTENT),
    ],
)
def test_good_file(server, tmp_path, known):
    seen = []
    path = fetch(
        server + "good", tmp_path / "a" / "model.pt", known, lambda done, total: seen.append((done, total))
    )
    assert path.read_bytes() == CONTENT
    assert seen[-1][0] == len(CONTENT)
    assert seen[-1][1] == len(CONTENT)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


@pytest.mark.parametrize("kind", ["bad", "cut", "missing"])
def test_what_is_not_right_leaves_nothing(server, tmp_path, kind):
    path = tmp_path / "model.pt"
    with pytest.raises(DownloadError) as caught:
        fetch(server + kind, path, SHA)
    message = str(caught.value)
    assert server + kind in message
    assert "model.pt" in message
    assert str(tmp_path) in message
    assert list(tmp_path.iterdir()) == []
    assert fetch(server + "good", path, SHA).read_bytes() == CONTENT


def test_a_download_that_is_given_up_leaves_nothing(remote_model, tmp_path):
    path = model_file("remote")
    remote_model.go.clear()
    steps = registry.fetch_model_steps("remote")
    done, total = next((done, total) for done, total in steps if done)
    assert 0 < done < total == len(remote_model.content)
    steps.close()
    assert list(path.parent.iterdir()) == []

    def refuse(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch_model("remote", refuse)
    assert list(path.parent.iterdir()) == []
    remote_model.go.set()
    assert fetch_model("remote") == path
    assert path.read_bytes() == remote_model.content
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert list(registry.fetch_model_steps("remote")) == []
    assert remote_model.requests == 3


def test_nothing_is_fetched_of_what_is_here(tmp_path):
    assert list(registry.fetch_model_steps("default")) == []
    path = tmp_path / "own.pth"
    path.write_bytes(b"x")
    assert list(registry.fetch_model_steps(str(path))) == []


def test_a_bar_is_shown_while_bytes_come_and_only_then(remote_model, capsys):
    fetch_model("remote")
    assert capsys.readouterr().err == ""
    model_file("remote").unlink()
    fetch_model("remote", progress=True)
    shown = capsys.readouterr().err
    assert "remote.safetensors: 100%" in shown
    size = f"{len(remote_model.content) / 1e6:.1f}M"
    assert f"{size}/{size}" in shown
    fetch_model("remote", progress=True)
    assert capsys.readouterr().err == ""


def test_offline_says_what_to_put_where(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    url = f"http://127.0.0.1:{port}/model.pt"
    with pytest.raises(DownloadError, match="put it into the folder") as caught:
        fetch(url, tmp_path / "model.pt", SHA)
    assert url in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_a_file_put_there_by_hand_is_checked(tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(CONTENT)
    for _ in range(2):
        assert fetch("http://127.0.0.1:1/", path, SHA) == path
    path.write_bytes(CONTENT[:-1])
    for _ in range(2):
        with pytest.raises(DownloadError) as caught:
            fetch("http://127.0.0.1:1/", path, SHA)
        message = str(caught.value)
        assert str(path) in message
        assert SHA in message
        assert "sha256:" + hashlib.sha256(CONTENT[:-1]).hexdigest() in message
        assert path.read_bytes() == CONTENT[:-1]


def test_registry_is_complete():
    assert {"default", "vit_b", "vit_l", "vit_h", "vit_t", "vit_b_lm", "medsam_vit_b"} <= set(MODELS)
    for name, entry in MODELS.items():
        assert entry.name == name
        assert entry.licence
        assert entry.citation
        assert entry.good_for
        assert entry.size > 10**6
        if name != "default":
            algorithm, digits = entry.hash.split(":")
            assert len(digits) == {"sha256": 64, "md5": 32, "xxh128": 32}[algorithm]
            assert entry.url.startswith("https://")
    assert len({e.file_name for e in MODELS.values()}) == len(MODELS)


def test_names_and_paths(tmp_path, monkeypatch):
    monkeypatch.setenv("NAPARI_SAM_CACHE", str(tmp_path))
    assert model_file("vit_b") == tmp_path / "models" / "sam_vit_b_01ec64.pth"
    assert not is_on_disk("vit_b")
    own = tmp_path / "own.pth"
    own.write_bytes(b"x")
    assert find_model(str(own)) == own
    assert fetch_model(str(own)) == own
    assert is_on_disk(str(own))
    with pytest.raises(ModelNotFoundError, match="neither"):
        find_model("nonsense")


def test_default_that_is_missing_is_an_installation_error(monkeypatch, tmp_path):
    monkeypatch.setattr(registry, "files", lambda _: tmp_path)
    with pytest.raises(ModelNotFoundError, match="install"):
        fetch_model("default")
