"""A representation at a URL: few requests, and every fault of a server is one clear line, never a wrong pixel."""

import gzip
import os
import pickle
import shutil
import socket
import subprocess
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from itertools import pairwise
from multiprocessing import get_context

import fsspec
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import lgsirens as lg
from lgsirens.representation import file, urls
from lgsirens.representation.urls import merged
from tests.access.server import serving
from tests.command import assert_one_line, run
from tests.small import representation

INR = representation((48, 96), 3, "lg", (8, 8), 1, local_width=24)  # rows of more than 8 kB
OTHER = representation((48, 96), 3, "lg", (8, 8), 2, local_width=24)
ROW = 4 * INR.parameters["per_partition"]


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(urls, "_WAITS", (0.01, 0.01, 0.01))


@pytest.fixture
def server(tmp_path):
    INR.save(tmp_path / "a.safetensors")
    with serving(tmp_path) as server:
        yield server


def location(server):
    return f"{server.url}/a.safetensors"


# What is asked for


def test_a_file_at_a_url_is_the_file(server):
    loaded = lg.load(location(server))
    assert np.array_equal(loaded.decode().values, INR.decode().values)
    assert file.sizes(loaded) == file.sizes(INR)
    assert np.array_equal(lg.open(location(server))[7:20, ::3], lg.open(INR)[7:20, ::3])


def test_opening_takes_at_most_3_requests_and_a_run_of_rows_one(server):
    sizes = file.sizes(INR)
    loaded = lg.load(location(server))
    assert len(server.asked) <= 3
    assert loaded.rows.source.bytes_read <= sizes["file"] - sizes["local"] + 16_000
    opened = len(server.asked)
    loaded.decode("16:48, 24:56")  # 4 of 12 partitions in each of 4 runs, the gaps 8 rows wide
    assert len(server.asked) - opened == 4
    assert sum(last + 1 - first for _, first, last in server.asked[opened:]) == 16 * ROW
    assert server.connections <= 5


def test_connections_are_kept(server):
    loaded = lg.load(location(server))
    for _ in range(5):
        loaded.decode("0:8, 0:8")
    assert (len(server.asked), server.connections) == (6, 1)


def test_small_gaps_are_read_through(server):
    loaded = lg.load(location(server))
    opened = len(server.asked)
    loaded.rows.read(np.array([10, 12, 40]))
    assert [(last + 1 - first) // ROW for _, first, last in server.asked[opened:]] == [3, 1]


spans = st.tuples(st.integers(0, 300_000), st.integers(1, 30_000)).map(lambda s: (s[0], s[0] + s[1]))


@given(st.lists(spans, max_size=30))
def test_merged_spans_cover_what_was_asked_and_little_more(asked):
    found = merged(asked)
    assert found == sorted(found)
    assert all(any(low <= start and end <= high for low, high in found) for start, end in asked)
    own = np.zeros(340_000, bool)
    for start, end in asked:
        own[start:end] = True
    gaps = [~own[low:high] for low, high in found]
    assert sum(int(gap.sum()) for gap in gaps) <= 64_000
    for gap in gaps:
        edges = np.flatnonzero(np.diff(np.concatenate([[False], gap, [False]]).astype(int)))
        assert all(b - a < 16_000 for a, b in zip(edges[::2], edges[1::2], strict=True))
    assert all(after[0] > before[1] for before, after in pairwise(found))


@settings(max_examples=15)
@given(st.lists(st.tuples(st.integers(0, 40_000), st.integers(0, 3000)), max_size=8))
def test_ranges_come_in_the_order_asked_for(tmp_path_factory, asked):
    content = np.random.default_rng(0).bytes(43_000)
    folder = tmp_path_factory.mktemp("ranges")
    (folder / "a.bin").write_bytes(content)
    with serving(folder) as server:
        source = urls.open_url(f"{server.url}/a.bin")
        assert source.read_ranges(asked) == [content[offset : offset + size] for offset, size in asked]
        assert source.size == len(content)
        with pytest.raises(lg.FileFormatError, match="truncated"):
            source.read_ranges([(42_000, 1001)])


def test_a_query_is_asked_for_and_not_told(server):
    with pytest.raises(lg.SignalError) as caught:
        lg.load(f"http://me:secret@{server.url[7:]}/b.safetensors?key=secret")
    assert str(caught.value).startswith(f"{server.url}/b.safetensors: no such file")
    assert server.asked[0][0] == "/b.safetensors?key=secret"


def test_a_redirection_is_followed_once(server, tmp_path):
    def elsewhere(answer):
        if answer.path == "/latest":
            answer.status, answer.headers, answer.body = 302, {"Location": "/a.safetensors?until=now"}, b""

    server.always = elsewhere
    loaded = lg.load(f"{server.url}/latest")
    assert np.array_equal(loaded.decode().values, INR.decode().values)
    assert [path for path, *_ in server.asked].count("/latest") == 1
    server.faults = [status(403)]  # the address has expired: it is looked up again
    assert np.array_equal(loaded.decode("0:8, 0:8").values, INR.decode("0:8, 0:8").values)
    assert [path for path, *_ in server.asked].count("/latest") == 2


# Faults


def status(code, **headers):
    def fault(answer):
        answer.status, answer.body, answer.headers = code, b"sorry", headers

    return fault


def ignores_ranges(answer):
    answer.status = 200
    answer.headers.pop("Content-Range", None)


def broken_off(answer):
    answer.sent = len(answer.body) // 2


def cut_short(answer):
    answer.body = answer.body[: len(answer.body) // 2]


def other_range(answer):
    total = answer.headers["Content-Range"].partition("/")[2]
    answer.headers["Content-Range"] = f"bytes 1-{len(answer.body)}/{total}"


def unknown_size(answer):
    answer.headers["Content-Range"] = answer.headers["Content-Range"].partition("/")[0] + "/*"


def no_range(answer):
    del answer.headers["Content-Range"]


def compressed(answer):
    answer.body, answer.headers["Content-Encoding"] = gzip.compress(answer.body), "gzip"


def other_bytes(answer):
    answer.body = bytes(len(answer.body))


def silent(answer):
    answer.delay = 1.0


LASTING = {
    "404": (status(404), lg.SignalError, "no such file \\(404"),
    "410": (status(410), lg.SignalError, "no such file"),
    "401": (status(401), lg.RunError, "may not be read \\(401"),
    "403": (status(403), lg.RunError, "may not be read \\(403"),
    "416": (status(416), lg.LgsirensError, "empty|changed"),
    "418": (status(418), lg.RunError, "answers 418"),
    "ignores ranges": (ignores_ranges, lg.SignalError, "ignores ranges.*download"),
    "other range": (other_range, lg.RunError, "answers 'bytes 1-"),
    "no range": (no_range, lg.RunError, "answers ''"),
    "unknown size": (unknown_size, lg.RunError, "answers 'bytes"),
    "compressed": (compressed, lg.SignalError, "compresses"),
    "other bytes": (other_bytes, lg.FileFormatError, "damaged|no manifest"),
}
PASSING = {
    "429": (status(429, **{"Retry-After": "0"}), "429"),
    "500": (status(500), "500"),
    "503": (status(503), "503"),
    "broken off": (broken_off, "cannot be read: .+"),
    "cut short": (cut_short, "announced"),
    "silent": (silent, "silent"),
}


@pytest.mark.parametrize("read_before", [0, 1])
@pytest.mark.parametrize("fault", LASTING)
def test_what_lasts_is_told_at_once(server, fault, read_before):
    does, error, message = LASTING[fault]
    loaded = lg.load(location(server)) if read_before else None
    server.always, before = does, len(server.asked)
    with pytest.raises(error, match=message) as caught:
        loaded.decode("0:8, 0:8") if loaded else lg.load(location(server))
    assert str(caught.value).startswith(location(server))
    assert len(str(caught.value).splitlines()) == 1
    assert len(server.asked) - before <= 2


@pytest.mark.parametrize("fault", PASSING)
def test_what_passes_is_tried_again_and_then_told(server, monkeypatch, fault):
    does, message = PASSING[fault]
    loaded = lg.load(location(server))
    monkeypatch.setattr(urls, "_SECONDS_OF_SILENCE", 0.2)
    urls._client.cache_clear()
    server.faults = [does, None, does, does]
    assert np.array_equal(loaded.decode("0:16, 0:8").values, INR.decode("0:16, 0:8").values)
    server.faults, server.always, before = [], does, len(server.asked)
    with pytest.raises(lg.RunError, match=message) as caught:
        loaded.decode("0:8, 0:8")
    assert len(str(caught.value).splitlines()) == 1
    assert len(server.asked) - before == 4
    urls._client.cache_clear()


def test_a_server_that_asks_for_patience_gets_some(server, monkeypatch):
    waits = []
    monkeypatch.setattr(urls.time, "sleep", waits.append)
    server.faults = [status(429, **{"Retry-After": wait}) for wait in ("3", "86400", "Tue, 01 Dec 2026 00:00:00 GMT")]
    lg.load(location(server))
    assert [wait for wait in waits if wait > 0] == [3.0, 10.0, 0.01]


def test_a_server_that_trickles_is_given_up(server, monkeypatch):
    moments = iter(range(0, 10**6, 20))
    monkeypatch.setattr(urls.time, "monotonic", lambda: next(moments))
    with pytest.raises(lg.RunError, match="too slow"):
        lg.load(location(server))


@pytest.mark.parametrize("copied", [lambda inr: inr, lambda inr: pickle.loads(pickle.dumps(inr))])
def test_a_file_that_changes_in_between_is_told(server, tmp_path, copied):
    loaded = lg.load(location(server))
    OTHER.save(tmp_path / "a.safetensors", overwrite=True)
    with pytest.raises(lg.FileFormatError, match="was replaced or changed since it was opened"):
        copied(loaded).decode("0:8, 0:8")


def test_without_a_version_its_rows_tell(server, tmp_path):
    server.always = lambda answer: answer.headers.pop("ETag")
    loaded = lg.load(location(server))
    OTHER.save(tmp_path / "a.safetensors", overwrite=True)
    with pytest.raises(lg.FileFormatError, match="damaged|changed"):
        loaded.decode("0:8, 0:8")


@pytest.mark.parametrize("content", [b"", b"short", b"\xff" * 40_000])
def test_what_is_no_representation_is_refused(server, tmp_path, content):
    (tmp_path / "b.safetensors").write_bytes(content)
    with pytest.raises(lg.LgsirensError) as caught:
        lg.load(f"{server.url}/b.safetensors")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("url", ["http://", "http://127.0.0.1:1/a", "http://no-such-host.invalid/a", "nosuch://a/b"])
def test_a_url_that_leads_nowhere_is_told(url):
    with pytest.raises(lg.LgsirensError) as caught:
        lg.load(url)
    assert len(str(caught.value).splitlines()) == 1


# Threads, processes, the command


def rows_of(array, row):
    torch.set_num_threads(1)
    return array[row]


@pytest.mark.parametrize("method", ["spawn", "fork"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_threads_and_processes_read_a_url(server, method):
    array, expected = lg.open(location(server), cache_bytes=0), np.asarray(lg.open(INR))
    array[0]
    with ThreadPoolExecutor(4) as pool:
        assert all(np.array_equal(row, expected[i]) for i, row in enumerate(pool.map(array.__getitem__, range(48))))
    with ProcessPoolExecutor(1, mp_context=get_context(method)) as pool:
        assert np.array_equal(pool.submit(rows_of, array, 20).result(), expected[20])
    assert np.array_equal(array[20], expected[20])


def test_the_command_takes_urls(server, folder, capsys):
    url = location(server)
    assert run("info", url, "--json") == 0
    assert run("decode", url, folder / "a.npy", "--region", "3:20,5:30", "--quiet") == 0
    assert np.array_equal(np.load(folder / "a.npy"), INR.decode("3:20, 5:30").values)
    assert run("crop", url, folder / "c.safetensors", "--region", "0:8,0:8") == 0
    assert np.array_equal(lg.load(folder / "c.safetensors").decode().values, INR.decode("0:8, 0:8").values)
    capsys.readouterr()
    assert run("decode", f"{server.url}/none.safetensors", folder / "b.npy") == 2
    assert_one_line(capsys, "/none.safetensors: no such file (404")


def test_info_of_a_url_reads_no_row(server, capsys):
    assert run("info", location(server), "--json") == 0
    assert "rows" in capsys.readouterr().err
    assert len(server.asked) <= 3


# Other file systems


@pytest.fixture
def memory():
    system = fsspec.filesystem("memory")

    def put(inr, path):
        inr.save(path, overwrite=True)
        system.pipe("/a.safetensors", path.read_bytes())

    yield put
    system.rm("/a.safetensors")


def test_file_systems_of_fsspec_are_read(tmp_path, memory):
    memory(INR, tmp_path / "a.safetensors")
    for url in ("memory://a.safetensors", (tmp_path / "a.safetensors").as_uri()):
        loaded = pickle.loads(pickle.dumps(lg.load(url)))
        assert np.array_equal(loaded.decode("3:9, 70:").values, INR.decode("3:9, 70:").values)
        assert loaded.rows.source.bytes_read < file.sizes(INR)["file"]


def test_what_changes_there_is_told(tmp_path, memory):
    memory(INR, tmp_path / "a.safetensors")
    loaded = lg.load("memory://a.safetensors")
    memory(OTHER, tmp_path / "a.safetensors")
    with pytest.raises(lg.FileFormatError, match="was replaced or changed"):
        loaded.decode("40:, 80:")


def test_what_is_not_there_is_told(tmp_path):
    for url in ("memory://none.safetensors", (tmp_path / "none.safetensors").as_uri(), tmp_path.as_uri()):
        with pytest.raises(lg.SignalError, match="no such file"):
            lg.load(url)


# nginx


@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")
def test_nginx_serves_it(tmp_path):
    INR.save(tmp_path / "a.safetensors")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "nginx.conf").write_text(
        f"{'user root;' if os.getuid() == 0 else ''} daemon off; pid {tmp_path}/pid; events {{}}\n"
        f"http {{ access_log {tmp_path}/access.log; client_body_temp_path {tmp_path}/b; proxy_temp_path {tmp_path}/p;"
        f" fastcgi_temp_path {tmp_path}/f; uwsgi_temp_path {tmp_path}/u; scgi_temp_path {tmp_path}/s; gzip on;"
        f" server {{ listen 127.0.0.1:{port}; root {tmp_path}; }} }}\n"
    )
    nginx = subprocess.Popen(["nginx", "-c", tmp_path / "nginx.conf", "-e", tmp_path / "error.log"])
    try:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        loaded = lg.load(f"http://127.0.0.1:{port}/a.safetensors")
        assert np.array_equal(loaded.decode("16:48, 24:56").values, INR.decode("16:48, 24:56").values)
        OTHER.save(tmp_path / "a.safetensors", overwrite=True)
        os.utime(tmp_path / "a.safetensors", (0, 0))  # its ETag counts seconds
        with pytest.raises(lg.FileFormatError, match="was replaced or changed"):
            loaded.decode("0:8, 0:8")
    finally:
        nginx.terminate()
        nginx.wait()
    log = (tmp_path / "access.log").read_text().splitlines()
    assert len(log) <= 3 + 4 + 1
