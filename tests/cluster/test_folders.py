"""Tests of answers in a folder: each row once, whatever happened to earlier runs."""

import datetime
import decimal
import gzip
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

import itrex_sweet
from itrex_sweet.cluster import folders
from itrex_sweet.cluster.folders import predict_folder
from itrex_sweet.cluster.local_worker import LocalWorker
from itrex_sweet.cluster.settings import FolderSettings
from itrex_sweet.errors import ConfigError, InputError, SweetError
from tests.cluster.conftest import texts

SMALL = FolderSettings(rows_per_part=16)


def contents(output) -> dict[str, bytes]:
    """Returns the files of answers and bad rows by their names."""
    return {name: (output / name).read_bytes() for name in names_of(output)}


def names_of(output) -> set[str]:
    """Returns the names of the files of answers and bad rows, also while a run writes them."""
    paths = [path for part in ("answers", "bad_rows") for path in (output / part).rglob("*.jsonl")]
    return {path.relative_to(output).as_posix() for path in paths if not path.is_dir()}


def objects(output, folder, name) -> list[dict]:
    """Returns the objects of the files of one input file, in the order of their names."""
    files = sorted((output / folder).rglob(f"{name}.*"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


@pytest.fixture()
def whole(artifact, inputs, tmp_path):
    """Returns the files of an uninterrupted run."""
    predict_folder(artifact, [str(inputs)], tmp_path / "whole", SMALL)
    return contents(tmp_path / "whole")


def test_each_row_is_in_one_file(artifact, inputs, tmp_path):
    output = tmp_path / "out"
    totals = predict_folder(artifact, [str(inputs)], output, FolderSettings(rows_per_part=16, echo=True))
    assert (totals.rows, totals.bad_rows, totals.answered_now) == (160, 2, 160)
    answers, bad = objects(output, "answers", "a.jsonl"), objects(output, "bad_rows", "a.jsonl")
    assert [answer["row"] for answer in answers] == [row for row in range(100) if row not in (7, 50)]
    assert [(row["file"], row["row"], row["line"]) for row in bad] == [("a.jsonl", 7, 8), ("a.jsonl", 50, 51)]
    assert "not a JSON object" in bad[0]["reason"] and bad[1]["reason"] == "the text is empty"
    assert [answer["row"] for answer in objects(output, "answers", "b.csv")] == list(range(60))
    known = dict(enumerate(texts(100)))
    expected = itrex_sweet.load(artifact).predict([known[answer["row"]] for answer in answers])
    fields = [{"row": answer["row"], "id": answer["row"], "text": known[answer["row"]]} for answer in answers]
    assert answers == [{**field, **prediction} for field, prediction in zip(fields, expected, strict=True)]
    sizes = [len(path.read_text().splitlines()) for path in sorted((output / "answers").rglob("b.csv.*"))]
    assert sizes == [16, 16, 16, 12]


def test_a_finished_folder_is_left_as_it_is(artifact, inputs, tmp_path, whole, monkeypatch):
    monkeypatch.setattr(folders, "LocalWorker", None)  # nothing is loaded
    totals = predict_folder(artifact, [str(inputs)], tmp_path / "whole", SMALL)
    assert (totals.rows, totals.bad_rows, totals.answered_now) == (160, 2, 0)
    assert contents(tmp_path / "whole") == whole


@pytest.mark.parametrize("seed", range(4))
def test_runs_that_end_anywhere_are_continued(artifact, inputs, tmp_path, whole, monkeypatch, seed):
    """Ends runs by exceptions at random writes, also between the files of one part."""
    rng, output = random.Random(seed), tmp_path / "out"
    replace = os.replace

    class Checked(LocalWorker):
        def answered(self, parts):
            for part, answers in super().answered(parts):
                assert not (output / "answers" / f"{part.name}.jsonl").exists()  # it is not computed again
                yield part, answers

    class Killed(BaseException):
        pass

    def failing(*names):
        if rng.random() < 0.2:
            raise Killed
        replace(*names)

    monkeypatch.setattr(folders, "LocalWorker", Checked)
    for _ in range(100):
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", failing)
            try:
                totals = predict_folder(artifact, [str(inputs)], output, SMALL)
                break
            except Killed:
                assert contents(output).items() <= whole.items()
    assert contents(output) == whole and (totals.rows, totals.bad_rows) == (160, 2)
    assert json.loads((output / "manifest.json").read_text())["complete"] is True


def test_sigkill_in_the_middle(artifact, tmp_path):
    (tmp_path / "in").mkdir()
    rows = "".join(json.dumps({"text": text}) + "\n" for text in texts(4000, 2))
    (tmp_path / "in" / "a.jsonl").write_text(rows)
    arguments = ["predict", artifact, tmp_path / "in", "--rows-per-part", 8, "--output"]

    def command(output) -> list[str]:
        return [sys.executable, "-m", "itrex_sweet.cli", *map(str, arguments), str(output)]

    subprocess.run(command(tmp_path / "whole"), check=True, timeout=300)
    expected = contents(tmp_path / "whole")
    assert len(expected) == 500
    output, before = tmp_path / "out", 0
    for _ in range(2):
        process = subprocess.Popen(command(output))
        end = time.monotonic() + 200
        while len(names_of(output)) < before + 20 and process.poll() is None and time.monotonic() < end:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        found = contents(output)
        assert found.items() <= expected.items() and len(found) >= before
        before = len(found)
    subprocess.run(command(output), check=True, timeout=300)
    assert contents(output) == expected


def test_changed_added_and_removed_files(artifact, inputs, tmp_path, whole, caplog):
    output = tmp_path / "whole"
    with (inputs / "a.jsonl").open("a") as stream:
        stream.write('{"text": "never again"}\n')
    (inputs / "c.txt").write_text("never again\n")
    (inputs / "sub" / "b.csv").unlink()
    totals = predict_folder(artifact, [str(inputs)], output, SMALL)
    assert totals.answered_now == 102
    assert "a.jsonl has changed" in caplog.text and "sub/b.csv is no longer" in caplog.text
    predict_folder(artifact, [str(inputs)], tmp_path / "new", SMALL)
    assert contents(output) == contents(tmp_path / "new") != whole


def test_a_touched_file_is_not_computed_again(artifact, inputs, tmp_path, whole):
    os.utime(inputs / "a.jsonl")
    assert predict_folder(artifact, [str(inputs)], tmp_path / "whole", SMALL).answered_now == 0


def test_another_artifact_or_other_settings_are_refused(artifact, other_artifact, inputs, tmp_path, whole):
    output = tmp_path / "whole"
    for directory, settings, name in (
        (other_artifact, SMALL, "artifact"),
        (artifact, FolderSettings(rows_per_part=17), "rows_per_part"),
        (artifact, FolderSettings(rows_per_part=16, prediction={"max_exit": 1}), "prediction"),
    ):
        with pytest.raises(ConfigError, match=rf"another {name}.*--restart"):
            predict_folder(directory, [str(inputs)], output, settings)
    assert contents(output) == whole
    totals = predict_folder(other_artifact, [str(inputs)], output, SMALL, restart=True)
    assert totals.answered_now == 160 and contents(output) != whole


def test_folders_with_other_contents_are_refused(artifact, inputs, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"contains 'thesis.txt'"):
        predict_folder(artifact, [str(inputs)], tmp_path / "mine", SMALL, restart=True)
    predict_folder(artifact, [str(inputs)], tmp_path / "out", SMALL)
    (tmp_path / "out" / "manifest.json").unlink()
    with pytest.raises(ConfigError, match=r"without a manifest.json"):
        predict_folder(artifact, [str(inputs)], tmp_path / "out", SMALL)


def test_one_process_writes(artifact, inputs, tmp_path, monkeypatch):
    class Meanwhile(LocalWorker):
        def answered(self, parts):
            with pytest.raises(SweetError, match="another process writes"):
                predict_folder(artifact, [str(inputs)], tmp_path / "out", SMALL)
            yield from super().answered(parts)

    monkeypatch.setattr(folders, "LocalWorker", Meanwhile)
    assert predict_folder(artifact, [str(inputs)], tmp_path / "out", SMALL).answered_now == 160


def test_a_truncated_file_is_finished_once_it_is_repaired(artifact, inputs, tmp_path):
    rng, output = random.Random(0), tmp_path / "out"
    lines = "".join(f"{text} {rng.random()}\n" for text in texts(4000))
    whole = gzip.compress(lines.encode())
    (inputs / "c.txt.gz").write_bytes(whole[: len(whole) // 2])
    totals = predict_folder(artifact, [str(inputs)], output, SMALL)
    assert totals.unfinished_files == ["c.txt.gz"]
    parts = sorted(path.name for path in (output / "answers").glob("c.txt.gz.*"))
    assert parts and all(int(part.split(".")[-2].split("-")[1]) % 16 == 15 for part in parts)  # whole parts only
    assert json.loads((output / "manifest.json").read_text())["complete"] is False
    (inputs / "c.txt.gz").write_bytes(whole)
    assert predict_folder(artifact, [str(inputs)], output, SMALL).unfinished_files == []
    predict_folder(artifact, [str(inputs)], tmp_path / "new", SMALL)
    assert contents(output) == contents(tmp_path / "new")


def test_a_file_that_changes_while_it_is_read_is_not_finished(artifact, inputs, tmp_path, monkeypatch):
    class Meanwhile(LocalWorker):
        def answered(self, parts):
            for place, answered in enumerate(super().answered(parts)):
                if place == 0:
                    with (inputs / "sub" / "b.csv").open("a") as stream:
                        stream.write("60,never again\n")
                yield answered

    monkeypatch.setattr(folders, "LocalWorker", Meanwhile)
    output = tmp_path / "out"
    assert predict_folder(artifact, [str(inputs)], output, SMALL).unfinished_files == ["sub/b.csv"]
    monkeypatch.setattr(folders, "LocalWorker", LocalWorker)
    assert predict_folder(artifact, [str(inputs)], output, SMALL).unfinished_files == []
    predict_folder(artifact, [str(inputs)], tmp_path / "new", SMALL)
    assert contents(output) == contents(tmp_path / "new")


def test_sources(artifact, inputs, tmp_path):
    single = predict_folder(artifact, [str(inputs / "a.jsonl"), str(inputs / "sub")], tmp_path / "out", SMALL)
    assert single.rows == 160 and list((tmp_path / "out" / "answers").glob("b.csv.*"))
    for sources, problem in (
        ([str(tmp_path / "absent")], "no such file or folder"),
        ([str(inputs / "a.jsonl"), str(inputs)], "have the same name"),
        ([str(artifact / "nothing")], "no such file"),
    ):
        with pytest.raises(InputError, match=problem):
            predict_folder(artifact, sources, tmp_path / "new", SMALL)
    (inputs / "d.csv").write_text("name\nx\n")
    with pytest.raises(ConfigError, match=r"d.csv: no column"):
        predict_folder(artifact, [str(inputs)], tmp_path / "new", SMALL)
    assert not (tmp_path / "new").exists()


def test_parquet_in_and_out(artifact, inputs, tmp_path):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = [*texts(30), None]
    parquet.write_table(pa.table({"id": list(range(31)), "text": rows}), inputs / "p.parquet")
    settings = FolderSettings(rows_per_part=16, output_format="parquet", echo=True, prediction={"top_k": 2})
    totals = predict_folder(artifact, [str(inputs)], tmp_path / "out", settings)
    assert (totals.rows, totals.bad_rows) == (191, 3)
    files = sorted((tmp_path / "out" / "answers").glob("p.parquet.*"))
    table = pa.concat_tables([parquet.read_table(file) for file in files])
    expected = itrex_sweet.load(artifact).predict(rows[:30], top_k=2)
    assert table["label"].to_pylist() == [row["label"] for row in expected]
    assert table["labels"].to_pylist() == [row["labels"] for row in expected]
    assert table["row"].to_pylist() == list(range(30)) and table["text"].to_pylist() == rows[:30]
    assert objects(tmp_path / "out", "bad_rows", "p.parquet") == [
        {"file": "p.parquet", "row": 30, "reason": "no value in column 'text'"}
    ]


@pytest.mark.parametrize("kind", ["single", "pair", "mixed"])
def test_columns_of_parquet_parts_do_not_depend_on_the_rows(artifact, tmp_path, kind):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = [{"text": text} for text in texts(12)]
    if kind != "single":
        rows = [
            {**row, "text_pair": "the soup"} if kind == "pair" or place < 4 else row for place, row in enumerate(rows)
        ]
    rows[5] |= {"id": 2**70}
    rows[8:] = [{"text": ""}] * 4  # a part without an answer
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = FolderSettings(rows_per_part=4, output_format="parquet", echo=True)
    predict_folder(artifact, [str(tmp_path / "in.jsonl")], tmp_path / "out", settings)
    tables = [parquet.read_table(file) for file in sorted((tmp_path / "out" / "answers").iterdir())]
    assert len({str(table.schema) for table in tables}) == 1
    table = pa.concat_tables(tables)
    assert table["text"].to_pylist() == [row["text"] for row in rows[:8]]
    assert table["text_pair"].to_pylist() == [row.get("text_pair") for row in rows[:8]]
    assert table["id"].to_pylist() == [None] * 5 + [str(2**70)] + [None] * 2


@pytest.mark.parametrize("output_format", ["jsonl", "parquet"])
def test_any_value_of_the_column_id_is_repeated(artifact, tmp_path, output_format):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    values = [datetime.date(2020, 1, 31), decimal.Decimal("1.50"), b"\xff", float("nan"), [1, None], {"a": 1.5}]
    for number, value in enumerate(values):
        parquet.write_table(pa.table({"id": [value], "text": ["the soup"]}), tmp_path / f"{number}.parquet")
    (tmp_path / "6.jsonl").write_text('{"id": "\\ud800", "text": "the soup"}\n')
    settings = FolderSettings(output_format=output_format, echo=True)
    totals = predict_folder(artifact, [str(tmp_path)], tmp_path / "out", settings)
    assert (totals.rows, totals.bad_rows) == (7, 0)
    files = sorted((tmp_path / "out" / "answers").iterdir())
    if output_format == "jsonl":
        found = [json.loads(file.read_text(), parse_constant=pytest.fail)["id"] for file in files]
        assert found == ["2020-01-31", "1.50", "\\xff", "nan", [1, None], {"a": 1.5}, "\ud800"]
    else:
        found = [parquet.read_table(file)["id"].to_pylist()[0] for file in files]
        assert found == ["2020-01-31", "1.50", "\\xff", "nan", "[1, null]", '{"a": 1.5}', "\\ud800"]


def test_answers_inside_of_the_input_folder_are_not_read(artifact, inputs, tmp_path, whole):
    for _ in range(2):  # the second run finds the files of the first
        totals = predict_folder(artifact, [str(inputs)], inputs / "sub" / "out", SMALL)
        assert totals.rows == 160
    assert contents(inputs / "sub" / "out") == whole


@pytest.mark.parametrize("output_format", ["jsonl", "parquet"])
def test_long_names_are_refused_before_rows_are_computed(artifact, tmp_path, monkeypatch, output_format):
    folder, output = tmp_path / "in", tmp_path / "out"
    settings = FolderSettings(output_format=output_format)
    folder.mkdir()
    long = folder / ("ü" * 124 + "a.jsonl")  # 255 bytes
    lines = "".join(json.dumps({"text": text}) + "\n" for text in ("fine", "", "good"))
    long.write_text(lines)
    with monkeypatch.context() as patch, pytest.raises(InputError, match=r"has 255 bytes.* at most (\d+)") as refused:
        patch.setattr(folders, "LocalWorker", None)  # nothing is loaded
        predict_folder(artifact, [str(folder)], output, settings)
    most = int(re.search(r"at most (\d+)", str(refused.value))[1])
    long.rename(fitting := folder / ("a" * (most - 6) + ".jsonl"))
    totals = predict_folder(artifact, [str(folder)], output, settings)
    assert (totals.rows, totals.bad_rows) == (3, 1)
    fitting.rename(fitting.with_name("b" + fitting.name))
    with pytest.raises(InputError, match="Rename the file"):
        predict_folder(artifact, [str(folder)], output, settings)
    assert len(list((output / "answers").iterdir())) == 1  # nothing is deleted either


def test_a_full_disk_is_an_error_that_names_the_file(artifact, inputs, tmp_path, whole, monkeypatch):
    real, output = os.fsync, tmp_path / "out"

    def fsync(descriptor):
        if len(names_of(output)) == 3:
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(SweetError, match=r"cannot write .*answers/.*No space left on device"):
        predict_folder(artifact, [str(inputs)], output, SMALL)
    monkeypatch.setattr(os, "fsync", real)
    predict_folder(artifact, [str(inputs)], output, SMALL)
    assert contents(output) == whole


def test_deleted_answers_are_computed_again(artifact, inputs, tmp_path, whole):
    output = tmp_path / "whole"
    (output / "answers" / "a.jsonl.000000000016-000000000031.jsonl").unlink()
    assert predict_folder(artifact, [str(inputs)], output, SMALL).answered_now == 16
    shutil.rmtree(output / "answers")
    assert predict_folder(artifact, [str(inputs)], output, SMALL).answered_now == 160
    assert contents(output) == whole


@pytest.mark.parametrize(
    "change", [{"run": 3}, {"run": None}, {"inputs": []}, {"inputs": {"a.jsonl": {}}}, "[" * 99999]
)
def test_damaged_manifests_are_refused(artifact, inputs, tmp_path, whole, change):
    path = tmp_path / "whole" / "manifest.json"
    path.write_text(change if isinstance(change, str) else json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ConfigError, match=r"manifest\.json .*--restart"):
        predict_folder(artifact, [str(inputs)], tmp_path / "whole", SMALL)
    predict_folder(artifact, [str(inputs)], tmp_path / "whole", SMALL, restart=True)
    assert contents(tmp_path / "whole") == whole


def test_output_does_not_depend_on_the_place_of_the_input(artifact, inputs, tmp_path, whole):
    shutil.copytree(inputs, tmp_path / "elsewhere")
    predict_folder(artifact, [str(tmp_path / "elsewhere")], tmp_path / "out", SMALL)
    assert contents(tmp_path / "out") == whole
