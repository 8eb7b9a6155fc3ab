"""Fixtures that every folder of tests uses."""

import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real labelled images; skips where it is absent."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    path = Path(os.environ.get("NAPARI_SAM_DATA", default))
    if not path.is_dir():
        pytest.skip(f"real data not found at {path}; set NAPARI_SAM_DATA")
    return path


@pytest.fixture(autouse=True)
def private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep every test's embeddings, sessions, downloads and models out of the user's own folders."""
    monkeypatch.setenv("NAPARI_SAM_MODELS", str(tmp_path / "napari-sam-models"))
    monkeypatch.setenv("NAPARI_SAM_CACHE", str(tmp_path / "napari-sam-cache"))


class RemoteModel:
    """The model in the package as one that must be downloaded; the second half waits for `go`."""

    def __init__(self, content: bytes) -> None:
        self.content, self.go, self.requests = content, threading.Event(), 0
        self.go.set()

    def handler(self) -> type[BaseHTTPRequestHandler]:
        remote = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                remote.requests += 1
                middle = len(remote.content) // 2
                self.send_response(200)
                self.send_header("Content-Length", str(len(remote.content)))
                self.end_headers()
                with suppress(ConnectionError):  # whoever asked may have gone
                    self.wfile.write(remote.content[:middle])
                    while not remote.go.wait(0.02):
                        self.wfile.write(remote.content[middle : middle + 8192])
                        middle += 8192
                    self.wfile.write(remote.content[middle:])

            def log_message(self, *args: object) -> None:
                pass

        return Handler


@pytest.fixture
def remote_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RemoteModel]:
    """A model named "remote" on a server of this machine; nothing is in the cache."""
    from napari_sam.inference import registry

    remote = RemoteModel(registry.model_file("default").read_bytes())
    with ThreadingHTTPServer(("127.0.0.1", 0), remote.handler()) as http:
        digits = hashlib.sha256(remote.content).hexdigest()
        entry = replace(
            registry.MODELS["default"],
            name="remote",
            file_name="remote.safetensors",
            url=f"http://127.0.0.1:{http.server_port}/",
            hash=f"sha256:{digits}",
        )
        monkeypatch.setitem(registry._PUBLISHED, "remote", entry)
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield remote
        remote.go.set()
        http.shutdown()
        thread.join()


@pytest.fixture
def older_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path in which the older distribution napari-sam is installed, as far as Python can tell."""
    folder = tmp_path / "site-packages"
    facts = folder / "napari_sam-0.4.15.dist-info"
    facts.mkdir(parents=True)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: napari-sam\nVersion: 0.4.15\n")
    monkeypatch.syspath_prepend(folder)
    return folder
