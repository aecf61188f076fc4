"""Tests of the protocol of text-embeddings-inference."""

import pytest

TEXTS = ["the room was good", "a", "soup is never bad but cold and slow again", ("the phone", "was awful")]


@pytest.mark.parametrize("name", ["single", "multi"])
def test_scores_are_those_of_predict(served, classifiers, name):
    batch = [[text] if isinstance(text, str) else list(text) for text in TEXTS]
    status, rankings = served.post("/predict", {"inputs": batch, "model": name})
    assert status == 200
    expected = classifiers[name].predict(TEXTS, top_k="all")
    for ranking, prediction in zip(rankings, expected, strict=True):
        shown = [{"label": entry["label"], "score": entry["score"]} for entry in ranking]
        assert shown == prediction["labels" if name == "single" else "scores"]
        assert [entry["score"] for entry in shown] == sorted((entry["score"] for entry in shown), reverse=True)
        assert ranking[0]["exit_layer"] == prediction["exit_layer"]
        assert ranking[0]["stopped_by"] == prediction["stopped_by"]


def test_regression_answers_the_value(served, classifiers):
    status, ranking = served.post("/predict", {"inputs": "the room was good", "model": "value"})
    assert status == 200
    assert ranking[0]["score"] == classifiers["value"].predict(["the room was good"])[0]["score"]


def test_a_list_of_two_strings_is_one_pair(served, classifiers):
    _, pair = served.post("/predict", {"inputs": ["the phone", "was awful"]})
    _, batch = served.post("/predict", {"inputs": [["the phone", "was awful"]]})
    _, other = served.post("/predict", {"inputs": [["the phone"], ["was awful"]]})
    expected = classifiers["single"].predict([("the phone", "was awful")], top_k="all")[0]["labels"]
    assert [{"label": entry["label"], "score": entry["score"]} for entry in pair] == expected
    assert batch == [pair] and len(other) == 2 and pair not in other


def test_raw_scores_are_logits(served, classifiers):
    _, ranking = served.post("/predict", {"inputs": "the room was good", "raw_scores": True})
    answers = classifiers["single"].executor.run(classifiers["single"].read(["the room was good"]))
    assert [entry["score"] for entry in ranking] == sorted(answers.logits[0].tolist(), reverse=True)


def test_options_are_those_of_predict(served, classifiers):
    text = "the room was good"
    _, first = served.post("/predict", {"inputs": text, "threshold": 0.0})
    _, by_header = served.post("/predict", {"inputs": text}, **{"X-Threshold": "0"})
    _, deep = served.post("/predict", {"inputs": text, "threshold": 1.0})
    _, second = served.post("/predict", {"inputs": text, "threshold": [1.0, 0.0]})
    _, limited = served.post("/predict", {"inputs": text, "threshold": 1.0, "max_exit": 2})
    layers = [ranking[0]["exit_layer"] for ranking in (first, by_header, deep, second, limited)]
    assert layers == [1, 1, 4, 2, 2] and limited[0]["stopped_by"] == "max_exit"
    assert deep[0]["score"] == classifiers["single"].predict([text], threshold=1.0)[0]["score"]


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        ({"inputs": "  "}, 400, "Empty"),
        ({"inputs": []}, 400, "Empty"),
        ({"inputs": [["a"]] * 33}, 413, "Validation"),
        ({"inputs": "soup " * 100, "truncate": False}, 413, "Validation"),
        ({"inputs": ["a", "b", "c"]}, 422, "Validation"),
        ({"inputs": [["a"], "b"]}, 422, "Validation"),
        ({"inputs": 5}, 422, "Validation"),
        ({}, 422, "Validation"),
        ({"inputs": "a", "threshold": 2}, 422, "Validation"),
        ({"inputs": "a", "threshold": "0.5"}, 422, "Validation"),
        ({"inputs": "a", "max_exit": 3}, 422, "Validation"),
        ({"inputs": "a", "quality": 0.5}, 422, "Validation"),
        ({"inputs": "a", "deadline_ms": 0}, 422, "Validation"),
        ({"inputs": "a", "raw_scores": 1}, 422, "Validation"),
        ({"inputs": "a", "truncation_direction": "left"}, 422, "Validation"),
        ({"inputs": "a", "model": "none"}, 404, "Validation"),
        ("[1]", 422, "Validation"),
        ("{", 400, "Validation"),
        ("[" * 100_000, 400, "Validation"),
        ('{"inputs": NaN}', 400, "Validation"),
        ('{"inputs": "\\ud800"}', 400, "Validation"),
        (b'{"inputs": "\xff"}', 400, "Validation"),
        ('{"inputs": "a", "max_exit": 1' + "0" * 400 + "}", 400, "Validation"),
    ],
)
def test_errors(served, body, status, kind):
    got, content = served.post("/predict", body)
    assert (got, content["error_type"]) == (status, kind) and content["error"]


@pytest.mark.parametrize("value", ["-1", "0", "nan", "inf", "1e400", "", "1_000", "0x10", "5 s", "500, 600", "9" * 30])
def test_deadlines_in_headers_are_positive_numbers(served, value):
    status, content = served.post("/predict", {"inputs": "a"}, **{"X-Deadline-Ms": value})
    assert status == 422 and "deadline" in content["error"].lower()


def test_errors_name_no_folder_of_the_server(served, folders):
    _, content = served.post("/predict", {"inputs": "a", "quality": 0.5})
    assert "not calibrated" in content["error"] and str(folders["single"].parent) not in content["error"]


def test_cut_texts_are_logged_once(start, folders, caplog):
    """A line for each request with a long text would fill the log."""
    running = start({"single": folders["single"]})
    for text in ("soup " * 100, "good " * 100):
        assert running.post("/predict", {"inputs": text})[0] == 200
    assert len([message for message in caplog.messages if message.startswith("Cut ")]) == 1


def test_unknown_fields_are_ignored(served):
    assert served.post("/predict", {"inputs": "a", "more": {"x": [1]}, "truncate": None})[0] == 200


def test_headers_tell_times_and_amounts(served):
    _, headers, _ = served.request("POST", "/predict", {"inputs": "the room was good"})
    assert headers["x-compute-type"] and headers["x-compute-tokens"] == "6" and headers["x-compute-characters"] == "17"
    for name in ("compute", "total", "tokenization", "queue", "inference"):
        assert int(headers[f"x-{name}-time"]) >= 0


def test_info_and_health(served):
    status, info = served.get("/info")
    assert status == 200 and info["model_id"] == "single" and info["max_client_batch_size"] == 32
    assert info["model_type"]["classifier"]["id2label"]["0"] == "LABEL_0"
    assert [served.get(path)[0] for path in ("/health", "/ping")] == [200, 200]
    assert served.get("/health")[1] == b""


def test_other_paths_and_methods(served):
    assert served.get("/predict")[0] == 405 and served.get("/nothing")[0] == 404
    assert served.request("HEAD", "/health")[0] == 200
