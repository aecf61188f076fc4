"""Tests of `itrex-sweet add-exits` and `itrex-sweet accelerate`."""

import pytest

from itrex_sweet import open_artifact
from itrex_sweet.acceleration import accelerating
from tests.acceleration.conftest import plain, texts_of  # noqa: F401

TRAINING = ("--epochs", 4, "--learning-rate", "3e-3", "--exits", "1,2", 4)


@pytest.fixture(scope="module")
def traffic(tmp_path_factory):
    path = tmp_path_factory.mktemp("traffic") / "traffic.txt"
    path.write_text("".join(f"{text}\n" for text in texts_of(700, seed=2)))
    return path


def test_add_exits(run, plain, traffic, tmp_path):  # noqa: F811
    finished = run("add-exits", plain, "--data", traffic, "--output", tmp_path / "out", "--limit", 300, *TRAINING)
    assert finished.status == 0, finished.err
    assert "exit  agreement" in finished.out and "loss" not in finished.out, "logs are not results"
    assert f"itrex-sweet calibrate {tmp_path / 'out'} --data OTHER" in finished.out
    assert open_artifact(tmp_path / "out").exits == (1, 2, 4)
    again = run("add-exits", tmp_path / "out", "--data", traffic, "--output", tmp_path / "again")
    assert again.status == 1 and "has exits already" in again.err


def test_exits_without_gain_are_an_error(run, plain, traffic, tmp_path):  # noqa: F811
    texts = tmp_path / "other.txt"
    texts.write_text("".join(f"Zimmer {number}\n" for number in range(300)))
    finished = run("add-exits", plain, "--data", texts, "--output", tmp_path / "out", "--json", "--epochs", 0.1)
    assert finished.status == 3 and finished.err.splitlines()[-1].startswith(
        "no gain: the model predicts the same label"
    )
    assert run("add-exits", plain, "--data", traffic, "--epochs", 0).status == 2


def test_accelerate(run, plain, traffic, tmp_path, monkeypatch):  # noqa: F811
    for name in ("calibrate", "prune_exits"):
        real = getattr(accelerating, name)
        monkeypatch.setattr(accelerating, name, lambda *given, real=real, **more: real(*given, **more, unit="layers"))
    argv = ("accelerate", plain, "--traffic", traffic, "--output", tmp_path / "out", "--no-int8", "--threads", 1)
    finished = run(*argv, "--max-agreement-drop", 0.1, *TRAINING, "--least-speedup", 0.0001)
    assert finished.status == 0, finished.err
    for part in ("times faster", "Certified with 95 % confidence: at least 90 %", "Held out, 100 texts", "float32"):
        assert part in finished.out
    assert finished.out.splitlines()[-1] == str(tmp_path / "out")
    slow = run(*argv, "--max-agreement-drop", 0.1, *TRAINING, "--least-speedup", 1000, "--json")
    assert slow.status == 3 and slow.json()["pays"] is False and slow.err.count("already done") == 5
    told = run(*argv, "--max-agreement-drop", 0.1, *TRAINING, "--least-speedup", 1000)
    assert told.status == 3 and told.out.startswith("Early exit does not pay")
    few = run(*argv, *TRAINING)
    assert few.status == 1 and "needs at least 11" in few.err and "there are 700" in few.err
