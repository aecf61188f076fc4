"""Metrics, live page, logs and traces of a running server."""

import asyncio
import base64
import ctypes
import gc
import hashlib
import os
import platform
import re
import shutil
import subprocess
import threading
import time
import weakref
from pathlib import Path

import pytest

import itrex_sweet
from itrex_sweet.serving.memory import return_free_memory
from itrex_sweet.serving.models import Models, Source
from itrex_sweet.serving.observer import Observer
from itrex_sweet.serving.page import page, page_headers
from itrex_sweet.serving.settings import Settings

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def counts(running) -> dict[str, float]:
    """Returns the samples of `/metrics` by their text."""
    status, headers, body = running.request("GET", "/metrics", raw=True)
    assert status == 200 and headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = [line for line in body.decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def ran(running, name: str, least: int = 9) -> float:
    """Returns a count of segments of all exits; waits for it, since segments are counted after their answers."""
    for _ in range(100):
        total = sum(value for key, value in counts(running).items() if key.startswith(f'{name}{{model="single"'))
        if total >= least:
            break
        time.sleep(0.05)
    return total


@pytest.fixture()
def running(start, folders):
    return start({"single": folders["single"], "multi": folders["multi"]})


def test_answers_and_failures_are_counted(running):
    texts = [["a fine phone"], ["awful soup"], ["a fine, long and happy film"]]
    answers = [running.post("/predict", {"inputs": texts}) for _ in range(3)]
    assert {status for status, _ in answers} == {200}
    running.post("/predict", {"inputs": "a fine phone", "model": "multi", "max_exit": 1})
    assert running.post("/predict", {"inputs": [[]]})[0] == 422
    assert running.post("/predict", {"inputs": "a", "model": "none"})[0] == 404
    assert running.get("/health")[0] == 200
    found = counts(running)
    assert found['te_request_count{method="batch"}'] == 3
    assert found['te_request_success{method="single"}'] == 1
    assert found['te_request_failure{err="validation"}'] == found['te_request_failure{err="not_found"}'] == 1
    assert found["te_predict_count"] == found["te_request_input_length_count"] == 10
    exits = {name: value for name, value in found.items() if name.startswith('itrex_sweet_rows_total{model="single"')}
    assert sum(exits.values()) == 9
    assert found['itrex_sweet_rows_total{model="multi",exit="1",stopped_by="max_exit"}'] == 1
    assert ran(running, "itrex_sweet_segment_rows_total") >= 9
    assert found["itrex_sweet_requests_in_flight"] == 0
    assert found["te_request_tokenization_duration_sum"] > 0 and found["te_request_inference_duration_sum"] > 0
    assert found["process_resident_memory_bytes"] > 1e6 and found["process_cpu_seconds_total"] > 0
    assert abs(found["process_start_time_seconds"] - time.time()) < 3600


def test_counts_continue_after_a_reload(running):
    running.post("/predict", {"inputs": "a fine phone"})
    running.loop.call_soon_threadsafe(running.server.reload)
    for _ in range(300):
        if all(model.version == 2 for model in running.server.models):
            break
        time.sleep(0.05)
    running.post("/predict", {"inputs": "a fine phone"})
    found = counts(running)
    rows = [value for name, value in found.items() if name.startswith('itrex_sweet_rows_total{model="single"')]
    assert sum(rows) == 2 and ran(running, "itrex_sweet_segments_total", 2) >= 2


def test_a_replaced_model_is_freed(folders):
    """No reference cycle keeps its weights until the garbage collector runs."""

    async def replaced():
        models = Models([Source("m", str(folders["single"]))], itrex_sweet.load, Settings(), Observer())
        await models.load_all()
        backend = weakref.ref(models.get("m").classifier.backend)
        gc.collect()
        gc.disable()
        try:
            await models.replace("m")
            for _ in range(100):
                if backend() is None:
                    break
                await asyncio.sleep(0.05)
            return backend() is None
        finally:
            gc.enable()
            models.close()

    assert asyncio.run(replaced())


def test_memory_of_a_replaced_model_is_given_back(folders, monkeypatch):
    """After the model is freed: before, there is nothing to give back."""
    for thread in threading.enumerate():
        if thread.name == "itrex-sweet-close":  # of an earlier test; it would call the function that replaces this one
            thread.join()
    returned = []
    monkeypatch.setattr("itrex_sweet.serving.models.return_free_memory", lambda: returned.append(backend()))

    async def replaced():
        nonlocal backend
        models = Models([Source("m", str(folders["single"]))], itrex_sweet.load, Settings(), Observer())
        await models.load_all()
        backend = weakref.ref(models.get("m").classifier.backend)
        await models.replace("m")
        for _ in range(1000):
            if returned:
                break
            await asyncio.sleep(0.02)
        models.close()
        return returned[:1]

    backend = None
    assert asyncio.run(replaced()) == [None]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_freed_memory_is_given_back():
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = (
        ctypes.c_void_p,
        [ctypes.c_size_t],
        [ctypes.c_void_p],
    )

    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    size = 100_000  # smaller blocks than those that are given back at once
    blocks = [libc.malloc(size) for _ in range(1000)]
    for block in blocks:
        ctypes.memset(block, 1, size)
    for block in blocks[:-1]:  # the last one keeps the others from being the end of the heap
        libc.free(block)
    before = resident()
    return_free_memory()
    assert before - resident() > 500 * size
    libc.free(blocks[-1])


def test_identifiers_of_requests(running):
    def identifier(**headers):
        _, answered, _ = running.request("POST", "/predict", {"inputs": "a fine phone"}, headers)
        return answered["x-request-id"]

    assert identifier(**{"X-Request-Id": "abc-1"}) == "abc-1"
    own = {identifier(), identifier()}
    assert len(own) == 2 and all(own)


def test_the_page_and_its_data(running):
    running.post("/predict", {"inputs": "a fine phone"})
    status, headers, body = running.request("GET", "/", raw=True)
    assert status == 200 and headers["content-type"] == "text/html; charset=utf-8"
    script = re.search(r"<script>(.*?)</script>", body.decode(), re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in headers["content-security-policy"]
    status, state = running.get("/live")
    assert status == 200 and [model["name"] for model in state["models"]] == ["single", "multi"]
    assert sum(state["models"][0]["rows"]) == 1 and state["models"][0]["queue"][0] == 0


def test_the_page_refers_to_no_other_host():
    addresses = re.findall(r"https?://[^\s'\"]+", page())
    assert {address for address in addresses if not address.startswith("http://www.w3.org/")} == set()
    assert not re.search(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=\"(?!data:)", page())
    assert "default-src 'none'" in page_headers()["Content-Security-Policy"]


def test_keys_protect_the_data_of_the_page(start, folders):
    running = start({"single": folders["single"]}, Settings(api_keys=("secret",)))
    assert running.request("GET", "/", raw=True)[0] == 200 and running.request("GET", "/metrics", raw=True)[0] == 200
    assert running.get("/live")[0] == 401
    assert running.request("GET", "/live", headers={"authorization": "Bearer secret"})[0] == 200


def test_a_server_without_the_page(start, folders):
    running = start({"single": folders["single"]}, Settings(live_page=False))
    assert running.get("/live")[0] == 404 and running.request("GET", "/metrics", raw=True)[0] == 200


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_the_page_in_a_browser(running, tmp_path):
    for _ in range(5):
        running.post("/predict", {"inputs": "a fine phone"})
        time.sleep(0.3)
    time.sleep(1.0)  # the second of these requests has to end
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}", "--dump-dom"]
    url = f"http://127.0.0.1:{running.port}/"
    command += ["--virtual-time-budget=3000", "--window-size=1200,900", url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    document = done.stdout
    assert re.search(r'<span id="about">single · ', document), done.stderr[-2000:]
    assert document.count("<polygon") >= 2  # areas of the exits
    assert re.search(r'class="curve" d="M', document)  # of the latencies
    assert re.search(r'<option value="multi">multi</option>', document)
    assert re.search(r"Median latency</dt><dd>[\d.]+", document)
    assert "The model was not calibrated" in document
