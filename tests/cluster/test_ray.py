"""Tests on a Ray cluster of several processes on this machine; skipped without Ray."""

import json
import socket
import urllib.error
import urllib.request

import pytest

pytest.importorskip("ray", reason="Ray is not installed (make test-ray)")

import itrex_sweet
from itrex_sweet.cluster import FolderSettings, SweetPredictor, deployment, predict_folder
from itrex_sweet.cluster.output_folder import OutputFolder
from itrex_sweet.errors import ConfigError
from tests.cluster.conftest import texts
from tests.cluster.ray_cluster import local_cluster
from tests.cluster.test_folders import contents


@pytest.fixture(scope="module")
def cluster():
    with local_cluster(nodes=2) as cluster:
        yield cluster


def test_a_killed_worker_loses_and_doubles_nothing(artifact, tmp_path, cluster, monkeypatch):
    (tmp_path / "in").mkdir()
    rows = [json.dumps({"text": text}) for text in texts(3000)]
    rows[7] = "broken"
    (tmp_path / "in" / "a.jsonl").write_text("\n".join(rows) + "\n")
    settings = FolderSettings(rows_per_part=50)
    predict_folder(artifact, [str(tmp_path / "in")], tmp_path / "one", settings)
    written, write = [], OutputFolder.write

    def write_and_kill(folder, part, answers):
        write(folder, part, answers)
        written.append(part.name)
        if len(written) == 10:
            assert cluster.kill_worker("RayActor")

    monkeypatch.setattr(OutputFolder, "write", write_and_kill)
    totals = predict_folder(artifact, [str(tmp_path / "in")], tmp_path / "many", settings, ray_workers=2)
    assert (totals.rows, totals.bad_rows, totals.answered_now) == (3000, 1, 3000)
    assert len(written) == len(set(written)) == 60
    assert contents(tmp_path / "many") == contents(tmp_path / "one")


def test_errors_of_workers_are_those_of_this_package(artifact, tmp_path, cluster):
    (tmp_path / "t.txt").write_text("never again\n")
    settings = FolderSettings(prediction={"max_exit": 3})
    with pytest.raises(ConfigError, match="max_exit=3: choose one of the exits"):
        predict_folder(artifact, [str(tmp_path / "t.txt")], tmp_path / "out", settings, ray_workers=1)


def test_ray_data(artifact, cluster):
    import ray

    rows = [{"id": row, "text": text} for row, text in enumerate([*texts(2000), None, "again"])]
    dataset = ray.data.from_items(rows, override_num_blocks=8).map_batches(
        SweetPredictor,
        fn_constructor_kwargs={"artifact": str(artifact)},
        compute=ray.data.ActorPoolStrategy(size=2),
        num_cpus=0.5,
        batch_size=64,
        batch_format="pyarrow",
    )
    found = sorted(dataset.take_all(), key=lambda row: row["id"])
    assert [row["id"] for row in found] == list(range(2002))
    expected = itrex_sweet.load(artifact).predict([row["text"] for row in rows if row["text"]])
    assert [{name: row[name] for name in expected[0]} for row in found if row["text"]] == expected
    assert [row["id"] for row in found if row["error"]] == [2000]


def post(url, content: bytes):
    """Returns status and JSON of the answer to a request."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, content), timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_ray_serve(artifact, cluster):
    """Concurrent requests get the answers of `predict`, also those that are in work when the replica is stopped."""
    from ray import serve

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    serve.start(http_options={"port": port, "host": "127.0.0.1"})
    try:
        options = {"num_replicas": 1, "ray_actor_options": {"num_cpus": 0.5}}
        handle = serve.run(deployment(artifact, deployment_options=options, max_waiting_rows=8000), name="tiny")
        given = texts(200)
        expected = itrex_sweet.load(artifact).predict(given)
        calls = [handle.classify.remote([text]) for text in given]
        cancelled = [handle.classify.remote([text] * 50) for text in given[:20]]
        for call in cancelled:
            call.cancel()
        assert [call.result(timeout_s=60)[0] for call in calls] == expected
        address = f"http://127.0.0.1:{port}/"
        assert post(address, json.dumps({"inputs": given[:3]}).encode()) == (200, expected[:3])
        status, answer = post(address, json.dumps({"inputs": given[0], "parameters": {"max_exit": 1}}).encode())
        assert status == 200 and answer[0]["exit_layer"] == 1
        for content, problem in (
            (b"{", "not JSON"),
            (b'{"inputs": 3}', "the body is not"),
            (b'{"inputs": [""]}', "cannot be read"),
            (b'{"inputs": "a", "parameters": {"max_exit": 3}}', "max_exit=3"),
        ):
            status, answer = post(address, content)
            assert status == 422 and problem in answer["error"]
        calls = [handle.classify.remote(given) for _ in range(20)]
        serve.delete("tiny")
        for call in calls:
            assert call.result(timeout_s=60) == expected
    finally:
        serve.shutdown()
