"""Tests of `add_exits`: the model's weights do not change, exits learn without labels, invalid inputs are rejected."""

import contextlib
import dataclasses
import itertools
import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, DistilBertConfig

import itrex_sweet
from itrex_sweet import Budget, SweetModelForSequenceClassification, add_exits, calibrate, open_artifact
from itrex_sweet.acceleration.agreement import Agreements
from itrex_sweet.acceleration.checkpoint import open_checkpoint
from itrex_sweet.calibration.drift import drift
from itrex_sweet.errors import ArtifactError, ConfigError, InputError, NoGainError, SweetError, UnsupportedModelError
from itrex_sweet.evaluation.reference import open_reference
from tests.acceleration.conftest import BAD, GOOD, texts_of
from tests.tiny_artifacts import WORDS, tiny_tokenizer
from tests.tiny_models import FAMILY_CONFIGS, ROW_CONFIGS, tiny_model

# transformers writes this family's tensors under other names than it reads them.
ROTARY = [name for name in ("nomic_bert",) if name in ROW_CONFIGS]
QUICK = dict(epochs=4, learning_rate=3e-3, exits=(1, 2, 4))


@pytest.fixture(scope="module")
def added(plain, tmp_path_factory):
    return add_exits(plain, texts_of(400, seed=2), tmp_path_factory.mktemp("added") / "out", **QUICK)


def test_the_weights_of_the_model_do_not_change(plain, added):
    before, after = (load_file(folder / "model.safetensors") for folder in (plain, added.artifact.directory))
    own = {name for name in after if not name.startswith("sweet_exits.")}
    assert own == {name for name, tensor in before.items() if tensor.is_floating_point()}
    for name in own:
        assert before[name].numpy().tobytes() == after[name].numpy().tobytes(), name
    assert any(name.startswith("sweet_exits.1.layer.") for name in after)


@pytest.mark.parametrize("family", ["distilbert", "roberta", "deberta-v3", *ROTARY])
def test_other_families(family, tmp_path, monkeypatch):
    """Adds exits to random models, with pairs of texts if the tokenizer supports them."""
    from itrex_sweet.acceleration import adding

    monkeypatch.setattr(adding, "_check_gain", lambda *_: None)
    monkeypatch.setattr(Agreements, "useful_exits", lambda found: found.exits)
    tiny_model(family, num_layers=3, num_labels=2).save_pretrained(tmp_path / "plain")
    tiny_tokenizer().save_pretrained(tmp_path / "plain")
    texts = texts_of(440, seed=2)
    pairs = texts if family == "roberta" else [*zip(texts[:220], texts[220:], strict=True)]
    added = add_exits(tmp_path / "plain", pairs, tmp_path / "out", epochs=1, exits=(1, 2, 3))
    before = AutoModelForSequenceClassification.from_pretrained(tmp_path / "plain").state_dict()
    after = load_file(tmp_path / "out" / "model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in after if not name.startswith("sweet_exits."))
    model = SweetModelForSequenceClassification.from_pretrained(tmp_path / "out", threshold=1.0)
    answers = open_reference(tmp_path / "plain").answers(pairs, len(pairs), model.artifact.label_names)
    full = [model.artifact.label_names.index(row["label"]) for row in model.predict(pairs)]
    assert np.mean(np.array(full) == answers) > 0.99, "the logits of a random model may tie"
    assert added.artifact.exits == (1, 2, 3)


def test_exits_learn_the_labels_of_full_depth(plain, added):
    assert added.artifact.exits == (1, 2, 4) and added.dropped == ()
    assert added.agreements.shares[-1] == 1.0 and min(added.agreements.shares) > 0.85
    assert added.rows == 300 and added.agreements.rows == 100
    texts = texts_of(120, seed=3)
    model = SweetModelForSequenceClassification.from_pretrained(added.artifact.directory, threshold=1.0)
    full = [row["label"] for row in model.predict(texts)]
    answers = open_reference(plain).answers(texts, len(texts), ("bad", "good"))
    assert full == [("bad", "good")[answer] for answer in answers]
    early = [row["label"] for row in model.predict(texts, threshold=0.0)]
    assert np.mean([one == other for one, other in zip(early, full, strict=True)]) > 0.85
    card = (added.artifact.directory / "README.md").read_text()
    assert "without labels" in card and str(plain) not in card


def test_calibration_on_the_training_texts_is_rejected(added):
    model = SweetModelForSequenceClassification.from_pretrained(added.artifact.directory)
    budget = Budget(max_agreement_drop=0.2, confidence=0.9)
    with pytest.raises(InputError, match=r"(training|selection) rows of this model"):
        calibrate(model, texts_of(400, seed=2), budget, unit="layers")
    calibration = calibrate(model, texts_of(300, seed=4), budget, unit="layers")
    assert calibration.candidates[calibration.chosen].mean_layers < 4


def test_drift_detects_another_language(added, tmp_path):
    model = SweetModelForSequenceClassification.from_pretrained(added.artifact.directory)
    calibration = calibrate(model, texts_of(400, seed=4), Budget(max_agreement_drop=0.2), unit="layers")
    written = calibration.write(model.artifact, tmp_path / "calibrated")
    model = SweetModelForSequenceClassification.from_pretrained(written.directory)
    assert drift(written, model.predict(texts_of(300, seed=5))).verdict == "stable"
    assert drift(written, model.predict(["das war gar nichts fürs Geld"] * 300)).verdict == "recalibrate"


def test_warning_about_texts_of_another_language(plain, tmp_path, caplog):
    texts = [f"das Zimmer {number} war {word}" for number in range(120) for word in ("gut", "schlecht")]
    with pytest.raises(NoGainError, match="the same label"):
        add_exits(plain, texts, tmp_path / "out", epochs=1)
    assert "unknown to the model's tokenizer" in caplog.text
    assert not (tmp_path / "out").exists()


def test_exits_that_learn_nothing_are_dropped_with_a_warning(plain, tmp_path, monkeypatch, caplog):
    from itrex_sweet.acceleration import adding

    real = adding.agreements_with_full_depth

    def one_at_chance(*arguments):
        real_ones = real(*arguments)
        return dataclasses.replace(real_ones, associations=(0.5, *real_ones.associations[1:]))

    monkeypatch.setattr(adding, "agreements_with_full_depth", one_at_chance)
    added = add_exits(plain, texts_of(300, seed=2), tmp_path / "out", **QUICK)
    assert added.dropped == (1,) and open_artifact(tmp_path / "out").exits == (2, 4)
    assert "Dropped exit 1, which learned nothing: on 75 texts, the outputs depend on the text no more" in caplog.text
    useless = Agreements((1, 4), (0.5, 1.0), 0.5, 2, 100, (0.1, 10.0))
    monkeypatch.setattr(adding, "agreements_with_full_depth", lambda *_: useless)
    with pytest.raises(NoGainError, match="no exit learned anything"):
        add_exits(plain, texts_of(300, seed=2), tmp_path / "other", **{**QUICK, "epochs": 0.1})


def test_a_useful_exit_of_imbalanced_texts_stays(plain, tmp_path, caplog):
    """6 % of the texts get the rare label. Exit 1 agrees as often as the frequent label does, and ranks the texts."""
    options = dict(exits=(1, 2, 4), seed=1)
    added = add_exits(plain, imbalanced_texts(900, 0.06), tmp_path / "out", epochs=1, learning_rate=4e-4, **options)
    agreements = added.agreements
    assert agreements.majority > 0.9
    assert agreements.shares[0] == agreements.majority, "this test needs an exit that predicts one label"
    assert added.artifact.exits == (1, 2, 4) and min(agreements.associations) > 3 and "Dropped" not in caplog.text
    recorded = open_artifact(tmp_path / "out").provenance["agreement_with_full_depth"]
    assert recorded["association"]["1"] == pytest.approx(agreements.associations[0], abs=0.01)


def test_exits_that_too_few_texts_judge_stay_and_are_named(plain, tmp_path, monkeypatch, caplog):
    from itrex_sweet.acceleration import adding

    few = Agreements((1, 2, 4), (0.99, 0.99, 1.0), 0.99, 2, 300, (1.4, 0.0, 17.0))
    assert few.others == 3 and few.useful_exits() == (1, 4) and few.unjudged_exits() == (1,)
    enough = dataclasses.replace(few, majority=0.94)
    assert enough.useful_exits() == (4,) and enough.unjudged_exits() == ()
    monkeypatch.setattr(adding, "agreements_with_full_depth", lambda *_: few)
    added = add_exits(plain, texts_of(300, seed=2), tmp_path / "out", **QUICK)
    assert added.dropped == (2,) and open_artifact(tmp_path / "out").exits == (1, 4)
    assert "3 of the 300 evaluated texts" in caplog.text and "whether exit 1 learned anything: kept" in caplog.text
    assert "Dropped exit 2" in caplog.text


def test_an_exit_with_constant_outputs_is_dropped_from_imbalanced_texts(plain, tmp_path, monkeypatch, caplog):
    from itrex_sweet.acceleration import adding

    real = adding.agreements_with_full_depth

    def after_breaking_exit_1(model, *arguments):
        with torch.no_grad():
            model.sweet_exits["1"].classifier.weight.zero_()
        return real(model, *arguments)

    monkeypatch.setattr(adding, "agreements_with_full_depth", after_breaking_exit_1)
    added = add_exits(plain, imbalanced_texts(400, 0.06), tmp_path / "out", **QUICK)
    assert added.dropped == (1,) and added.agreements.associations[0] == 0.0
    assert "Dropped exit 1, which learned nothing" in caplog.text


def test_texts_with_one_label_in_the_evaluation_only(plain, tmp_path, caplog):
    """The rare label occurs among the training texts, and not among the few that evaluate the exits."""
    texts = imbalanced_texts(300, 0.0) + imbalanced_texts(4, 1.0)
    orders = (np.random.default_rng(seed).permutation(304) for seed in itertools.count())
    seed = next(seed for seed, order in enumerate(orders) if (order[:76] < 300).all())
    added = add_exits(plain, texts, tmp_path / "out", **QUICK, seed=seed)
    assert added.agreements.rows == 304 and added.agreements.num_labels == 2 and len(added.artifact.exits) > 1
    assert "All 76 evaluated texts get the same label" in caplog.text
    with pytest.raises(NoGainError, match="the same label for all 300 texts"):
        add_exits(plain, imbalanced_texts(300, 0.0), tmp_path / "other", **QUICK)


def imbalanced_texts(count: int, rare: float) -> list[str]:
    """Returns texts, of which a share has a bad word."""
    texts = texts_of(40 * count if rare < 1 else 4 * count, seed=11)
    bad = [text for text in texts if any(word in BAD for word in text.split())]
    good = [text for text in texts if any(word in GOOD for word in text.split())]
    number = round(rare * count)
    return good[: count - number] + bad[:number]


def test_exits_cannot_be_added_twice(added, tmp_path):
    with pytest.raises(ConfigError, match="has exits already: 1, 2, 4"):
        add_exits(added.artifact.directory, texts_of(300, seed=2), tmp_path / "out")


def test_invalid_models(plain, tmp_path):
    texts = texts_of(300, seed=2)
    base = tmp_path / "base"
    tiny_model("bert", num_layers=4).bert.save_pretrained(base)
    tiny_tokenizer().save_pretrained(base)
    with pytest.raises(ArtifactError, match="not a fine-tuned classifier"):
        add_exits(base, texts, tmp_path / "out")
    with pytest.raises(ArtifactError, match="neither a folder here"):
        add_exits(tmp_path / "nowhere", texts, tmp_path / "out")
    other = tmp_path / "other"
    shutil.copytree(plain, other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "model_type": "albert"}))
    with pytest.raises(UnsupportedModelError, match="ALBERT"):
        add_exits(other, texts, tmp_path / "out")
    (other / "config.json").write_text(json.dumps(config))
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens([f"word{number}" for number in range(200)])
    tokenizer.save_pretrained(other)
    with pytest.raises(ConfigError, match="96 embeddings"):
        add_exits(other, texts, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("field", "value"), [("num_attention_heads", 0), ("num_attention_heads", 5), ("num_hidden_layers", "4")]
)
def test_a_damaged_field_is_named(plain, tmp_path, field, value):
    model = _changed(plain, tmp_path / "model", "config.json", **{field: value})
    with pytest.raises(ArtifactError, match=f"{field}={value!r}"):
        open_checkpoint(model)


# 10^30 layers would fill the memory, were they listed.
DAMAGED = (None, "x", "", -1, 0, 1, True, 2.5, 1e99, 10**30, [], ["a"], {}, {"a": 1}, float("nan"), [[1]], {"0": None})


@pytest.mark.parametrize(
    "family",
    [name for name in ("bert", "distilbert", "deberta-v3", "modernbert", "eurobert") if name in FAMILY_CONFIGS],
)
def test_any_damaged_config_is_an_error_or_has_no_effect(tmp_path, family):
    tiny_model(family).config.save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    config = json.loads(file.read_text())
    for name in [*config, "sweet", "model_type", "id2label", "label2id", "num_labels", "problem_type"]:
        for value in DAMAGED:
            file.write_text(json.dumps({**config, name: value}))
            with contextlib.suppress(SweetError):
                assert open_checkpoint(tmp_path).depth >= 1
    for text in ("", "[]", "1", "null", "{", '"a"'):
        file.write_text(text)
        with pytest.raises(ArtifactError):
            open_checkpoint(tmp_path)


def test_fields_that_a_config_leaves_out(tmp_path):
    """A `config.json` need not hold the defaults of its family."""
    config = {"model_type": "distilbert", "architectures": ["DistilBertForSequenceClassification"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert open_checkpoint(tmp_path).depth == DistilBertConfig().n_layers


def test_the_checkpoint_is_not_replaced(plain, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(plain, model)
    before = {path.name: path.read_bytes() for path in model.iterdir()}
    (tmp_path / "link").symlink_to(model)
    for output in (model, model / ".." / "model", tmp_path / "link"):
        with pytest.raises(ConfigError, match="holds the model itself"):
            add_exits(model, texts_of(300, seed=2), output, **QUICK)
    assert {path.name: path.read_bytes() for path in model.iterdir()} == before


@pytest.fixture
def quick_training(monkeypatch):
    """Keeps all exits, so that little training is enough."""
    monkeypatch.setattr(Agreements, "useful_exits", lambda found: found.exits)
    return {**QUICK, "epochs": 0.1}


def test_unusual_checkpoints(plain, tmp_path, quick_training):
    """Label names that are equal, and lengths that mean no limit."""
    texts = texts_of(200, seed=2)
    for number, length in enumerate((10**30, int(1e30), 1e30, 2**63 - 1, None)):
        model = _changed(plain, tmp_path / f"length{number}", "tokenizer_config.json", model_max_length=length)
        add_exits(model, texts, tmp_path / f"out{number}", **quick_training)
        assert itrex_sweet.load(tmp_path / f"out{number}").predict(texts[:2])
    model = _changed(plain, tmp_path / "names", "config.json", id2label={"0": "x", "1": "x"}, label2id={"x": 1})
    artifact = add_exits(model, texts, tmp_path / "out", **quick_training).artifact
    answers = open_reference(model).answers(texts, len(texts), artifact.label_names)
    assert np.array_equal(answers, open_reference(plain).answers(texts, len(texts), ("bad", "good")))


def test_checkpoints_that_cannot_be_saved_fail_before_training(plain, tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.Trainer.train", None)
    model = _changed(plain, tmp_path / "gap", "config.json", id2label={"0": "a", "5": "b"}, label2id={"a": 0, "b": 5})
    with pytest.raises(ArtifactError, match="ids 0 to 1, without gaps"):
        add_exits(model, texts_of(200, seed=2), tmp_path / "out", **QUICK)
    model = tmp_path / "pickle"
    shutil.copytree(plain, model)
    torch.save(load_file(model / "model.safetensors"), model / "pytorch_model.bin")
    (model / "model.safetensors").unlink()
    with pytest.raises(ArtifactError, match=r"pytorch_model.bin, a pickle file.*save_pretrained"):
        add_exits(model, texts_of(200, seed=2), tmp_path / "out", **QUICK)


def _changed(source, folder, file, **fields):
    """Copies a model and changes fields of a JSON file."""
    shutil.copytree(source, folder)
    (folder / file).write_text(json.dumps({**json.loads((folder / file).read_text()), **fields}))
    return folder


def test_invalid_traffic(plain, tmp_path):
    few = texts_of(150, seed=2)
    with pytest.raises(
        InputError, match=r"needs at least 200 different texts; there are 150 \(90 duplicates removed\)"
    ):
        add_exits(plain, [*few, *(text.upper() for text in few[:90])], tmp_path / "out")
    with pytest.raises(InputError, match="no rows"):
        add_exits(plain, [], tmp_path / "out")
    with pytest.raises(InputError, match=r"needs at least 200 different texts; there are 120"):
        add_exits(plain, texts_of(300, seed=2), tmp_path / "out", limit=120)
    with pytest.raises(InputError, match=r"40 of 340 rows have no text .* first is row 300: the text"):
        add_exits(plain, [*texts_of(300, seed=2), *[""] * 20, *[None] * 20], tmp_path / "out", max_length=2)
    with pytest.raises(InputError, match="bytes"):
        add_exits(plain, b"traffic.txt", tmp_path / "out")
    for limit in (0, -1, 2.5):
        with pytest.raises(ConfigError, match="limit"):
            add_exits(plain, few, tmp_path / "out", limit=limit)
    with pytest.raises(ConfigError, match="max_length=2: texts have 2 special tokens"):
        add_exits(plain, texts_of(300, seed=2), tmp_path / "out", max_length=2)
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(InputError, match=r"empty.jsonl.*no rows"):
        add_exits(plain, tmp_path / "empty.jsonl", tmp_path / "out")
    for wrong in ({"epochs": 0}, {"learning_rate": float("nan")}, {"exits": (4,)}, {"exits": (1, 9)}):
        with pytest.raises(ConfigError):
            add_exits(plain, texts_of(300, seed=2), tmp_path / "out", **wrong)
    assert not (tmp_path / "out").exists() and torch.is_grad_enabled() and WORDS
