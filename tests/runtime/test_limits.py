"""Tests of rows that exceed the limits of a model: one rule for every backend, errors with the caller's row numbers."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from itrex_sweet import SweetModelForSequenceClassification
from itrex_sweet.errors import BackendUnavailable, InputError
from itrex_sweet.runtime.limits import reasons
from itrex_sweet.runtime.ragged import TokenBatch
from tests.tiny_artifacts import WORDS, tiny_artifact, tiny_cascade, tiny_tokenizer
from tests.tiny_models import POSITIONS, VOCABULARY

FAMILIES = ("bert", "roberta", "distilbert", "electra", "deberta", "deberta-v3")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("artifacts")
    for family in FAMILIES:
        tiny_artifact(root / family, family, tokenizer=tiny_tokenizer())
    tiny_cascade(root / "cascade", tokenizer=tiny_tokenizer())
    return root


@pytest.fixture(scope="module")
def model_of(folders):
    loaded = {}

    def get(name, backend):
        if (name, backend) not in loaded:
            try:
                loaded[name, backend] = SweetModelForSequenceClassification.from_pretrained(
                    folders / name, backend=backend
                )
            except BackendUnavailable as error:
                pytest.skip(str(error))
        return loaded[name, backend]

    return get


@pytest.mark.parametrize("backend", ["torch", "native", "ipex"])
@pytest.mark.parametrize("name", [*FAMILIES, "cascade"])
def test_limits_of_ids_types_and_positions(model_of, name, backend):
    model = model_of(name, backend)
    types = model.backend.token_types
    assert types == {"bert": 2, "electra": 2, "cascade": 2, "roberta": 1}.get(name, types)
    assert (types is None) == (name in ("distilbert", "deberta-v3") or (name == "deberta" and types is None))

    def answered(ids, mask=None, token_types=None):
        return torch.isfinite(model(ids, mask, token_types).logits).all()

    last = VOCABULARY - 1
    assert answered([[2, 0, last]])
    for wrong in (-1, VOCABULARY, 2**31, 2**32, 2**62, -(2**63)):
        with pytest.raises(InputError, match=rf"token id {wrong} in rows \[1\]: ids go from 0 to {last}"):
            model([[2, 5, 3], [2, wrong, 3]])
    assert answered([[2, 5, 3]], token_types=[[0, (types or 2) - 1, 0]])
    for wrong in (-1, -(2**31), *(() if types is None else (types, 2**31, 2**62))):
        with pytest.raises(InputError, match=rf"token type {wrong} in rows \[0\]"):
            model([[2, 5, 3]], token_type_ids=[[0, wrong, 0]])
    limit = model.backend.max_tokens
    if limit is None:
        assert answered([[2] + [5] * 200 + [3]])
        hole = np.zeros((1, 400), int)
        hole[0, [0, 399]] = 1
        assert answered(np.full((1, 400), 5), hole)
        return
    assert answered([[5] * limit])
    with pytest.raises(InputError, match=rf"rows \[0\] have up to {limit + 1} tokens"):
        model([[5] * (limit + 1)])
    # A mask with a hole: two tokens alone, the second at a position that the model has, or not.
    for columns in (limit, limit + 1, 5 * limit):
        hole = np.zeros((2, columns), int)
        hole[0, 0] = hole[1, [0, -1]] = 1
        if columns == limit:
            assert answered(np.full((2, columns), 5), hole)
            continue
        with pytest.raises(InputError, match=rf"rows \[1\] have a token at position {columns - 1}") as caught:
            model(np.full((2, columns), 5), hole)
        assert caught.value.rows == (1,)
    padded = np.full((1, 3 * limit), 5)
    mask = np.zeros_like(padded)
    mask[0, -limit:] = 1  # padding on the left moves no position
    assert answered(padded, mask)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.lists(st.integers(-2, VOCABULARY + 1), min_size=1, max_size=6), min_size=1, max_size=6), st.data())
def test_errors_name_exactly_the_invalid_rows(model_of, ids, data):
    backend = model_of("bert", "torch").backend
    types = [data.draw(st.lists(st.integers(-1, 2), min_size=len(row), max_size=len(row))) for row in ids]
    found = reasons(TokenBatch.from_rows(ids, types), backend)
    for place, (row, kinds) in enumerate(zip(ids, types, strict=True)):
        bad_id = next((token for token in row if not 0 <= token < VOCABULARY), None)
        bad_type = next((kind for kind in kinds if not 0 <= kind < 2), None)
        if bad_id is not None:
            assert found[place].startswith(f"token id {bad_id}:")
        elif bad_type is not None:
            assert found[place].startswith(f"token type {bad_type}:")
        else:
            assert place not in found


def larger_tokenizer():
    """Returns a tokenizer with more words than the embedding table."""
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens([f"new{number}" for number in range(VOCABULARY)])
    return tokenizer


@pytest.mark.parametrize("backend", ["torch", "native"])
def test_row_numbers_are_the_callers(model_of, monkeypatch, backend):
    model = model_of("bert", backend)
    monkeypatch.setattr(model, "tokenizer", larger_tokenizer())
    texts = ["good", "", "new90 good", None, "bad", "a new95", ("fine", "new94"), "\ud83d", "awful"]
    good, bad = [0, 4, 8], [1, 2, 3, 5, 6, 7]
    marked = model.predict(texts, errors="mark")
    assert [place for place, row in enumerate(marked) if "error" in row] == bad
    assert [marked[place] for place in good] == model.predict([texts[place] for place in good])
    for place in (2, 5, 6):
        assert marked[place]["error"].startswith("token id 1")
    for call in (model.predict, model.read):
        with pytest.raises(InputError, match="6 of 9 texts cannot be read: row 1: the text is empty; row 2: token id"):
            call(texts)
        with pytest.raises(InputError) as caught:
            call(texts)
        assert caught.value.rows == tuple(bad)


def test_invalid_token_type_affects_its_row_only(model_of, monkeypatch):
    model = model_of("roberta", "torch")
    tokenizer = tiny_tokenizer()
    tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    monkeypatch.setattr(model, "tokenizer", tokenizer)
    marked = model.predict(["good", ("good", "bad"), "bad"], errors="mark")
    assert [("error" in row) for row in marked] == [False, True, False]
    assert "token type 1: types go from 0 to 0" in marked[1]["error"]


def test_row_numbers_of_logits_that_are_not_finite(tmp_path, monkeypatch):
    monkeypatch.setattr("itrex_sweet.artifact.reading.check_tensors_of", lambda *_, **__: None)  # would refuse them
    from safetensors.torch import load_file, save_file

    from itrex_sweet.errors import NonFiniteLogitsError

    tiny_artifact(tmp_path, tokenizer=tiny_tokenizer())
    tensors = load_file(tmp_path / "model.safetensors")
    word = tiny_tokenizer().convert_tokens_to_ids(WORDS[0])
    tensors["bert.embeddings.word_embeddings.weight"][word] = float("nan")
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    model = SweetModelForSequenceClassification.from_pretrained(tmp_path, verify=False)
    with pytest.raises(NonFiniteLogitsError, match=r"rows \[1, 3\]") as caught:
        model.predict(["good", WORDS[0], "bad", f"bad {WORDS[0]}"])
    assert caught.value.rows == (1, 3)
    marked = model.predict(["", WORDS[0], "bad", None, WORDS[0]], errors="mark")
    assert ["not finite" in row.get("error", "") for row in marked] == [False, True, False, False, True]


def test_positions_of_a_model_without_padding_offset():
    class Limits:
        vocabulary, token_types, max_tokens = 10, 1, 4

    batch = TokenBatch.from_padded(np.ones((2, 6), int), np.array([[1, 0, 0, 0, 1, 0], [0, 0, 1, 1, 1, 1]]))
    assert list(reasons(batch, Limits())) == [0] and POSITIONS > 4
