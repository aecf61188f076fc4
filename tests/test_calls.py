"""Tests of the arguments of calls and of loading: accepted types, and errors that name the invalid argument."""

import inspect
import logging

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from itrex_sweet import SweetModelForSequenceClassification
from itrex_sweet.classifier.options import checked_dtype_name
from itrex_sweet.errors import ArtifactError, ConfigError, InputError, SweetError
from itrex_sweet.policy import Policy
from tests.tiny_artifacts import tiny_artifact, tiny_tokenizer

TEXTS = ["the soup was good", "never again", "awful"]
POLICY = Policy((0.5, 0.6), (1.5, 2.0, 0.7))


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    path = tmp_path_factory.mktemp("artifact")
    tiny_artifact(path, tokenizer=tiny_tokenizer(), policy=POLICY)
    return path


@pytest.fixture(scope="module")
def model(directory):
    return SweetModelForSequenceClassification.from_pretrained(directory)


# ---------------------------------------------------------------------- settings


def shown(value):
    return "a large number" if isinstance(value, int) and abs(value) > 10**9 else repr(value)


NO_NUMBERS = ["8", "0.9", True, False, 1j, b"8", [], [1, 2, 3], {}, {1}, object(), np.array("8"), np.bool_(True)]
NO_NUMBERS += [np.array([1, 2, 3]), torch.ones(2, 2), torch.tensor(True), float("nan"), 10**400, -(10**5000)]
NOT_POSITIVE = [-1, -2.5, float("-inf"), np.int8(-1), torch.tensor(-1)]
NOT_WHOLE = [2.5, 8.0, np.float32(2.5), torch.tensor(2.5), float("inf"), np.array(8.0)]


@pytest.mark.parametrize("value", [0, *NO_NUMBERS[:-2], *NOT_POSITIVE, *NOT_WHOLE, 10**5000, -(10**5000)], ids=shown)
@pytest.mark.parametrize("setting", ["batch_size", "max_length", "top_k", "max_exit"])
def test_integer_settings(model, setting, value):
    with pytest.raises(ConfigError, match=setting):
        model.predict(TEXTS, **{setting: value})
    with pytest.raises(ConfigError, match=setting):  # before the texts are looked at
        model.predict(["", None], **{setting: value})


@pytest.mark.parametrize("value", [*NO_NUMBERS, *NOT_POSITIVE, float("inf")], ids=shown)
@pytest.mark.parametrize("setting", ["threshold", "quality", "deadline_ms"])
def test_float_settings(model, setting, value):
    with pytest.raises(ConfigError, match=setting):
        model.predict(TEXTS, **{setting: value})


@pytest.mark.parametrize(
    "half",
    [
        0.5,
        np.float32(0.5),
        np.float64(0.5),
        np.float16(0.5),
        np.array(0.5),
        torch.tensor(0.5),
        torch.tensor(0.5).half(),
    ],
    ids=repr,
)
def test_numbers_of_other_libraries(directory, model, half):
    expected = model.predict(TEXTS, threshold=0.5)
    assert model.predict(TEXTS, threshold=half) == expected
    for both in ([half, half], (half, half), np.array([0.5, 0.5]), torch.tensor([0.5, 0.5]), np.full(2, half)):
        assert model.predict(TEXTS, threshold=both) == expected
    assert (
        SweetModelForSequenceClassification.from_pretrained(directory, threshold=half).policy.thresholds == (0.5,) * 2
    )
    assert {row["exit_layer"] for row in model.predict(TEXTS, threshold=1.0, deadline_ms=half / 20000)} == {1}
    for two in (2, np.int64(2), np.uint8(2), np.array(2), torch.tensor(2)):
        assert model.predict(TEXTS, threshold=1.0, max_exit=two) == model.predict(TEXTS, threshold=1.0, max_exit=2)
        assert model.predict(TEXTS, batch_size=two, max_length=two + 3) == model.predict(TEXTS, max_length=5)


@pytest.mark.parametrize("setting", ["overlong", "errors"])
@pytest.mark.parametrize("value", ["", "Raise", None, 1, ["raise"], {}])
def test_invalid_choices(model, setting, value):
    with pytest.raises(ConfigError, match=setting):
        model.predict(TEXTS, **{setting: value})


@pytest.mark.parametrize("value", ["quick", 0.5, {}, (0.5, 0.5)])
def test_invalid_policies(model, value):
    with pytest.raises(ConfigError, match="policy is a"):
        model.predict(TEXTS, policy=value)
    with pytest.raises(ConfigError, match="policy is a"):
        model.policy = value
    with pytest.raises(ConfigError, match="tokenizer is a"):
        model.tokenizer = value


def test_unknown_arguments_of_predict(model):
    with pytest.raises(TypeError, match="treshold"):
        model.predict(TEXTS, treshold=0.5)
    with pytest.raises(TypeError, match="output_attention"):
        model(input_ids=[[2, 5, 3]], output_attention=True)


@pytest.mark.parametrize("settings_", [{"thresholds": "0.9"}, {"thresholds": 0.9}, {"temperatures": ["1", 1.0, 1.0]},
                                       {"thresholds": [None, 0.5]}, {"patience": 1.5}, {"patience": True},
                                       {"max_exit_index": 1.0}, {"max_exit_index": -1},
                                       {"criterion": ["entropy"]}])  # fmt: skip
def test_invalid_policy_settings(settings_):
    with pytest.raises(ConfigError):
        Policy(**{"thresholds": (0.5, 0.5), "temperatures": (1.0,) * 3, **settings_})


# ---------------------------------------------------------------------- token ids, masks, types, labels

IDS = [[2, 5, 3], [2, 7, 3]]
BAD_IDS = {
    "nothing": (lambda: None, "input_ids is missing"),
    "text": (lambda: "good", r"input_ids is str.*predict|input_ids is str"),
    "texts": (lambda: ["good", "bad"], r"texts.*model\.predict"),
    "tokenizer output": (lambda: tiny_tokenizer()(["good"]), r"model\(\*\*encoded\)"),
    "ragged": (lambda: [[2, 5], [3]], "different lengths"),
    "nested unevenly": (lambda: [[2, 5], 3], "different lengths"),
    "with none": (lambda: [[2, None]], "NoneType"),
    "floats": (lambda: [[2.0, 5.0]], "float64"),
    "float tensor": (lambda: torch.ones(2, 3), "float32"),
    "half tensor": (lambda: torch.ones(2, 3).bfloat16(), "bfloat16|integers"),
    "complex": (lambda: torch.ones(2, 3).to(torch.complex64), "complex64"),
    "booleans": (lambda: torch.ones(2, 3).bool(), "bool"),
    "one row": (lambda: [2, 5, 3], r"shape \(3,\).*one row"),
    "a number": (lambda: 2, r"shape \(\)"),
    "three dimensions": (lambda: [[[2, 5, 3]]], r"shape \(1, 1, 3\)"),
    "empty list": (lambda: [], r"shape \(0,\)"),
    "no columns": (lambda: torch.zeros(2, 0, dtype=torch.long), r"rows \[0, 1\] have no tokens"),
    "an empty row": (lambda: [[]], "no tokens"),
    "64 bits": (lambda: np.full((1, 1), 2**63, np.uint64), "9223372036854775808"),
    "more bits": (lambda: [[2**70]], "beyond 64 bits"),
    "negative": (lambda: [[2, -5]], r"token id -5 in rows \[0\]"),
    "least": (lambda: [[-(2**63)]], "token id -9223372036854775808"),
    "too large": (lambda: [[2, 5], [96, 2]], r"token id 96 in rows \[1\]"),
    "dates": (lambda: np.array([["2020-01-01"]], dtype="datetime64[D]"), "datetime64"),
    "sparse": (lambda: torch.tensor(IDS).to_sparse(), "input_ids"),
    "on no device": (lambda: torch.zeros(1, 3, dtype=torch.long, device="meta"), "input_ids"),
}


@pytest.mark.parametrize("kind", BAD_IDS)
def test_invalid_token_ids(model, kind):
    make, message = BAD_IDS[kind]
    with pytest.raises(InputError, match=message):
        model(make())
    with pytest.raises(InputError, match=message):
        model(input_ids=make())


def test_types_of_token_ids(model):
    expected = model(input_ids=torch.tensor(IDS)).logits
    kinds = [IDS, tuple(map(tuple, IDS)), np.array(IDS), np.array(IDS, np.uint8), np.array(IDS, order="F")]
    kinds += [torch.tensor(IDS).to(dtype) for dtype in (torch.int8, torch.uint8, torch.int16, torch.int32)]
    kinds += [[torch.tensor(row) for row in IDS], torch.tensor(IDS).T.contiguous().T, np.array(IDS, dtype=">i8")]
    for ids in kinds:
        torch.testing.assert_close(model(ids).logits, expected)
    for no_rows in (torch.zeros(0, 4, dtype=torch.long), np.zeros((0, 0), int)):
        output = model(no_rows)
        assert output.logits.shape == (0, 3) and output.exit_layer.shape == output.confidence.shape == (0,)
        assert output.stopped_by == []


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("attention_mask", [[1, 1]], r"shape \(1, 2\), input_ids \(2, 3\)"),
        ("attention_mask", [1, 1, 1], r"shape \(3,\)"),
        ("attention_mask", [[0, 0, -np.inf]] * 2, "attention_mask holds -inf"),
        ("attention_mask", [[1, 1, 0.5]] * 2, "holds 0.5"),
        ("attention_mask", [[1, 1, 2]] * 2, "holds 2"),
        ("attention_mask", [[1, 1, np.nan]] * 2, "holds nan"),
        ("attention_mask", [[1, 1, 1j]] * 2, "complex128"),
        ("attention_mask", [["1", "1", "1"]] * 2, "texts"),
        ("attention_mask", [[1, 1], [1]], "different lengths"),
        ("attention_mask", [[1, 1, 1], [0, 0, 0]], r"rows \[1\] have no tokens"),
        ("attention_mask", "none", "attention_mask is str"),
        ("token_type_ids", [[0, 0]], r"shape \(1, 2\)"),
        ("token_type_ids", [[0, 0, 0.0]] * 2, "float64"),
        ("token_type_ids", [[0, 0, 0], [0, -1, 0]], r"token type -1 in rows \[1\]: types go from 0 to 1"),
        ("token_type_ids", [[0, 0, 2], [0, 0, 0]], r"token type 2 in rows \[0\]"),
        ("labels", [0], r"shape \(1,\), and one for each of 2 rows"),
        ("labels", [[0], [1]], r"shape \(2, 1\)"),
        ("labels", 0, r"shape \(\)"),
        ("labels", [0.0, 1.0], "labels holds float64"),
        ("labels", torch.tensor([True, False]), "labels holds bool"),
        ("labels", ["a", "b"], "labels holds texts"),
        ("labels", [0, None], "NoneType"),
        ("labels", [0, 3], "label 3: labels go from 0 to 2"),
        ("labels", [-1, 0], "label -1"),
        ("labels", [2**63, 0], "labels holds"),
    ],
)
def test_invalid_masks_types_and_labels(model, name, value, message):
    with pytest.raises(InputError, match=message):
        model(IDS, **{name: value})


def test_types_of_masks_and_labels(model):
    mask = [[1, 1, 1], [1, 1, 0]]
    expected = model(IDS, mask, labels=torch.tensor([0, -100]))
    masks = [np.array(mask, kind) for kind in (bool, np.int8, np.uint64, np.float16, np.float64)]
    for other in (mask, *masks, torch.tensor(mask).float(), torch.tensor(mask).bool()):
        for labels in ([0, -100], np.array([0, -100], np.int16), torch.tensor([0, -100], dtype=torch.int32)):
            output = model(IDS, other, labels=labels)
            torch.testing.assert_close(output.loss, expected.loss)
            torch.testing.assert_close(output.logits, expected.logits)
    assert torch.isnan(model(IDS, labels=[-100, -100]).loss)  # as in torch: no row has a label


def in_every_layout(values):
    """Yields arrays with the same numbers and other strides, byte order and writability."""
    array = np.array(values)
    padded = np.zeros([2 * size for size in array.shape], array.dtype)
    padded[tuple(slice(None, None, 2) for _ in array.shape)] = array
    fixed = array.copy()
    fixed.flags.writeable = False
    return [
        *(np.flip(np.flip(array, axis).copy(), axis) for axis in range(array.ndim)),
        padded[tuple(slice(None, None, 2) for _ in array.shape)],
        *(fixed, array.astype(">i4"), np.asfortranarray(array)),
    ]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("rows", [1, 2])
def test_array_layouts(model, rows):
    ids, mask, types, labels = IDS[:rows], [[1, 1, 1]] * rows, [[0, 1, 1]] * rows, [2] * rows
    expected = model(ids, mask, types, labels)
    for arrays in zip(*map(in_every_layout, (ids, mask, types)), strict=False):
        for label_array in in_every_layout(labels):
            output = model(*arrays, label_array)
            torch.testing.assert_close(output.logits, expected.logits)
            torch.testing.assert_close(output.loss, expected.loss)


numbers = st.integers(-3, 100) | st.floats() | st.none() | st.booleans() | st.text(max_size=2) | st.integers()
nested = st.recursive(numbers, lambda inner: st.lists(inner, max_size=4), max_leaves=12)


@settings(max_examples=200, deadline=None)
@given(nested, st.none() | nested, st.none() | nested, st.none() | nested)
def test_any_call_gives_logits_or_a_sweet_error(model, ids, mask, types, labels):
    try:
        output = model(ids, mask, types, labels)
    except SweetError:
        return
    assert output.logits.shape == (len(ids), 3) and torch.isfinite(output.logits).all()


def test_return_dict(model):
    for absent in (True, None, 1):
        assert model(IDS, return_dict=absent).logits.shape == (2, 3)
    logits, exits, confidence, why = model(IDS, return_dict=False)
    assert logits.shape == (2, 3) and exits.shape == confidence.shape == (2,) and len(why) == 2


# ---------------------------------------------------------------------- loading


@pytest.mark.parametrize(
    "arguments",
    [
        {"torch_dtype": torch.float32},
        {"torch_dtype": "auto"},
        {"dtype": "fp32"},
        {"dtype": "float32"},
        {"dtype": np.float32},
        {"dtype": "torch.float32", "torch_dtype": torch.float32},
        {"dtype": None},
        {"device_map": "cpu"},
        {"device_map": "auto"},
        {"device_map": {"": "cpu"}},
        {"device_map": torch.device("cpu")},
        {"device_map": None},
        {"device": "cpu"},
        {"low_cpu_mem_usage": True},
        {"trust_remote_code": False},
        {"attn_implementation": "sdpa"},
        {"attn_implementation": "eager"},
        {"use_safetensors": True},
        {"config": None},
        {"export": False},
        {"load_in_8bit": False},
    ],
)
def test_ignored_transformers_arguments(directory, model, arguments):
    loaded = SweetModelForSequenceClassification.from_pretrained(directory, **arguments)
    assert loaded.computed_in == "float32" and loaded.predict(TEXTS) == model.predict(TEXTS)


@pytest.mark.parametrize("dtype", ["bf16", "bfloat16", "BFloat16", torch.bfloat16, "torch.bfloat16"], ids=repr)
def test_spellings_of_bfloat16(dtype):
    assert checked_dtype_name(dtype) == "bfloat16"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"torch_dtype": torch.float16}, "dtype=torch.float16.*float32 or bfloat16"),
        ({"dtype": "fp16"}, "dtype='fp16'"),
        ({"dtype": "int8"}, "itrex-sweet quantize"),
        ({"dtype": 16}, "dtype=16"),
        ({"dtype": "bf16", "torch_dtype": "fp32"}, "contradict"),
        ({"device_map": "cuda"}, "device_map='cuda'"),
        ({"device_map": "cuda:0"}, "cuda"),
        ({"device_map": {"": 0}}, "device_map"),
        ({"device": torch.device("cuda")}, "device='cuda'"),
        ({"trust_remote_code": True}, "trust_remote_code=True: no code"),
        ({"use_safetensors": False}, "use_safetensors=False"),
        ({"attn_implementation": "flash_attention_2"}, "attention"),
        ({"config": object()}, "config=object: it is part of the artifact"),
        ({"num_labels": 5}, "num_labels"),
        ({"quantization_config": {"bits": 8}}, "itrex-sweet quantize"),
        ({"load_in_8bit": True}, "itrex-sweet quantize"),
        ({"export": True}, "itrex-sweet quantize"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": "32"}, "batch_size='32'"),
        ({"threshold": "0.9"}, "threshold='0.9'"),
        ({"threshold": 1.5}, "threshold 1.5"),
        ({"warm_up": 3}, "warm_up=3"),
        ({"warm_up": [(0, 5)]}, "warm_up=0"),
        ({"warm_up": ["ab"]}, "warm_up"),
    ],
)
def test_unsupported_transformers_arguments(directory, arguments, message):
    with pytest.raises(ConfigError, match=message):
        SweetModelForSequenceClassification.from_pretrained(directory, **arguments)


def test_unknown_arguments_of_from_pretrained(directory):
    with pytest.raises(TypeError, match="'treshold'; did you mean 'threshold'"):
        SweetModelForSequenceClassification.from_pretrained(directory, treshold=0.5)
    with pytest.raises(TypeError, match=r"'zzz'$"):
        SweetModelForSequenceClassification.from_pretrained(directory, zzz=1)


@pytest.mark.parametrize("name", [None, "", 3, [], b"", "a\0b", "a" * 5000], ids=lambda name: repr(name)[:9])
def test_invalid_model_names(name):
    with pytest.raises(ArtifactError):
        SweetModelForSequenceClassification.from_pretrained(name, local_files_only=True)


def test_adapter_folder(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ArtifactError, match="a PEFT adapter alone"):
        SweetModelForSequenceClassification.from_pretrained(tmp_path)


def test_torch_module_methods_without_effect(model):
    for same in (model.to("cpu"), model.to(torch.device("cpu"), torch.float32), model.to(device="cpu"), model.cpu(),
                 model.to(torch.float32), model.to(torch.zeros(1)), model.float(), model.eval(), model.train(False),
                 model.requires_grad_(False)):  # fmt: skip
        assert same is model
    assert model.device.type == "cpu" and model.dtype == torch.float32 and not model.can_generate()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model: model.to("cuda"), "CPU"),
        (lambda model: model.to(0), "CPU"),
        (lambda model: model.to("nonsense"), "CPU"),
        (lambda model: model.to(torch.float16), "float16"),
        (lambda model: model.to("cpu", dtype=torch.bfloat16), "bfloat16"),
        (lambda model: model.cuda(), "CPU"),
        (lambda model: model.half(), "chosen at load"),
        (lambda model: model.bfloat16(), "chosen at load"),
        (lambda model: model.double(), "chosen at load"),
        (lambda model: model.train(), "SweetCallback"),
        (lambda model: model.requires_grad_(), "SweetCallback"),
        (lambda model: next(model.parameters()), r"artifact\.tensors"),
        (lambda model: list(model.named_parameters()), r"artifact\.tensors"),
        (lambda model: model.state_dict(), r"artifact\.tensors"),
    ],
)
def test_unsupported_torch_module_methods(model, call, message):
    with pytest.raises(ConfigError, match=message):
        call(model)


# ---------------------------------------------------------------------- answers


def test_top_k(model):
    plain = model.predict(TEXTS)
    for top_k, count in ((1, 1), (2, 2), (3, 3), (9, 3), ("all", 3)):
        rows = model.predict(TEXTS, top_k=top_k)
        for row, before in zip(rows, plain, strict=True):
            labels = row.pop("labels")
            assert row == before and len(labels) == count
            assert labels[0] == {"label": row["label"], "score": row["score"]}
            scores = [each["score"] for each in labels]
            assert scores == sorted(scores, reverse=True) and len({each["label"] for each in labels}) == count
            if count == 3:
                assert sum(scores) == pytest.approx(1.0, abs=1e-6)
    for bad in ("some", "", 0, True):
        with pytest.raises(ConfigError, match="top_k"):
            model.predict(TEXTS, top_k=bad)
    assert "labels" not in model.predict(["good", ""], errors="mark", top_k=2)[1]


def test_logits_are_divided_by_the_temperature_by_default(model):
    encoded = model.tokenizer(TEXTS, return_tensors="pt", padding=True)
    labels = torch.tensor([0, 1, 2])
    for threshold in (0.0, 0.5, 1.0):
        output = model(**encoded, threshold=threshold, labels=labels)
        raw = model(**encoded, threshold=threshold, labels=labels, raw_logits=True)
        exits = [model.artifact.exits.index(layer) for layer in output.exit_layer.tolist()]
        temperatures = torch.tensor(POLICY.temperatures)[exits]
        torch.testing.assert_close(output.logits * temperatures[:, None], raw.logits)
        for each in (output, raw):
            torch.testing.assert_close(each.loss, torch.nn.functional.cross_entropy(each.logits, labels))
        predicted = model.predict(TEXTS, threshold=threshold, top_k="all")
        assert [row["score"] for row in predicted] == pytest.approx(output.logits.softmax(-1).amax(-1).tolist())
        assert [row["stopped_by"] for row in predicted] == output.stopped_by
        torch.testing.assert_close(output.confidence, output.logits.softmax(-1).amax(-1))


def test_label_names(directory):
    model = SweetModelForSequenceClassification.from_pretrained(directory)
    assert tuple(model.config.id2label.values()) == model.artifact.label_names
    model.config.id2label = {0: "bad", 1: 1, 2: "good"}
    rows = model.predict(TEXTS, top_k="all")
    assert {each["label"] for row in rows for each in row["labels"]} == {"bad", "1", "good"}


def test_model_properties(directory, model):
    for part in (directory.name, "bert", "(1, 2, 4)", "float32", model.backend.name, "max_probability", "(0.5, 0.6)",
                 "calibrated=False"):  # fmt: skip
        assert part in repr(model), part
    for name in ("isa", "threads"):
        assert str(getattr(model.backend, name, "")) in repr(model)


# ---------------------------------------------------------------------- longer than trained


def test_warning_about_rows_longer_than_in_training(tmp_path, caplog):
    import json

    tiny_artifact(tmp_path, tokenizer=tiny_tokenizer())
    config = json.loads((tmp_path / "config.json").read_text())
    config["sweet"]["longest_row"] = 6
    (tmp_path / "config.json").write_text(json.dumps(config))
    load = SweetModelForSequenceClassification.from_pretrained
    for answer in (lambda model, text: model.predict([text]), lambda model, text: model(**model.tokenizer([text]))):
        model = load(tmp_path, verify=False)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            answer(model, "the soup was good")
            assert "trained on" not in caplog.text
            for _ in range(2):
                answer(model, "the soup was good again")
        assert caplog.text.count("was trained on rows of up to 6 tokens and answers one of 7") == 1
        assert "max_length=6" in caplog.text


def test_every_argument_of_from_pretrained_is_documented():
    method = SweetModelForSequenceClassification.from_pretrained
    for name in inspect.signature(method).parameters:
        assert name in method.__doc__, name
