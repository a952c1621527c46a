"""The page's own server: ranges, and nothing but the page and the file. (The page itself: viewer/tests.)"""

import socket
from http.client import HTTPConnection
from threading import Thread
from types import SimpleNamespace

import pytest
import torch
import uvicorn
from hypothesis import given
from hypothesis import strategies as st

from lgsirens.access.server import app
from lgsirens.representation.sources import FileSource
from tests.command import run
from tests.small import representation

TOKEN = "a-token"
ADDRESS = f"/{TOKEN}/my_photo.safetensors"


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    path = tmp_path_factory.mktemp("server") / "my photo.safetensors"
    representation((20, 20), 1, "lc", (5, 5)).save(path)
    return path


@pytest.fixture(scope="module")
def ask(stored):
    """A request to a real server: path, headers and method to status, headers and content."""
    server = uvicorn.Server(uvicorn.Config(app(FileSource(stored), TOKEN), log_level="warning", lifespan="off"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        thread = Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        connection = HTTPConnection("127.0.0.1", port)

        def asking(path, method="GET", **headers):
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            return SimpleNamespace(status_code=answer.status, headers=answer.headers, content=answer.read())

        yield asking
        connection.close()
        server.should_exit = True
        thread.join()


@given(st.integers(0, 6000), st.one_of(st.none(), st.integers(0, 6000)))
def test_a_range_is_its_bytes(ask, stored, low, high):
    data = stored.read_bytes()
    answer = ask(ADDRESS, Range=f"bytes={low}-{'' if high is None else high}")
    wanted = data[low : None if high is None else high + 1]
    if not wanted:
        assert (answer.status_code, answer.headers["content-range"]) == (416, f"bytes */{len(data)}")
        return
    assert (answer.status_code, answer.content) == (206, wanted)
    assert answer.headers["content-range"] == f"bytes {low}-{low + len(wanted) - 1}/{len(data)}"
    assert int(answer.headers["content-length"]) == len(wanted)


def test_the_end_and_the_whole(ask, stored):
    data = stored.read_bytes()
    assert ask(ADDRESS, Range="bytes=-10").content == data[-10:]
    assert ask(ADDRESS, Range="bytes=-99999").content == data
    assert ask(ADDRESS, Range="bytes=-0").status_code == 416
    for other in ({}, {"Range": "bytes=0-1,3-4"}, {"Range": "lines=1-2"}):
        answer = ask(ADDRESS, **other)
        assert (answer.status_code, answer.content) == (200, data)
    assert ask(ADDRESS, "HEAD").headers["content-length"] == str(len(data))


def test_the_page(ask):
    answer = ask(f"/{TOKEN}/view.html?file=my_photo.safetensors")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "Content-Security-Policy" in answer.content.decode()


@pytest.mark.parametrize(
    "path",
    [
        *("/", "/view.html", f"/{TOKEN}/", f"/{TOKEN}/other.safetensors", "/my_photo.safetensors", "/wrong/view.html"),
        *(f"/{TOKEN}/../etc/passwd", f"/{TOKEN}/%2e%2e/view.html", f"/{TOKEN}//etc/passwd", f"{ADDRESS}/x"),
    ],
)
def test_nothing_else_is_there(ask, path):
    assert ask(path).status_code == 404


def test_other_names_and_methods_are_refused(ask):
    assert ask(ADDRESS, Host="rebound.example").status_code == 400
    assert ask(ADDRESS, "POST").status_code == 405


def test_what_is_no_representation_is_told_at_once(tmp_path, capsys):
    path = tmp_path / "x.safetensors"
    path.write_bytes(torch.zeros(9).numpy().tobytes())
    assert run("view", path, "--no_browser") == 2
    assert run("view", tmp_path / "none.safetensors", "--no_browser") == 2
    assert len(capsys.readouterr().err.splitlines()) == 2
