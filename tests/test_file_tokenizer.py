"""Tests of tokenizers read without transformers: those that are accepted give the same rows as transformers."""

import json
from pathlib import Path

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from itrex_sweet.artifact.layout import is_tokenizer_file
from itrex_sweet.tokenization.encoders import encoder_of
from itrex_sweet.tokenization.file_tokenizer import NotStandardError, file_tokenizer
from itrex_sweet.tokenization.stored import load_tokenizer
from tests.tiny_tokenizers import BACKENDS, fast_tokenizer

BERT = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ROBERTA = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
TEXTS = [
    *("good soup", "GOOD S\u00f6up!", "", "\u4e2d\u6587 text", "a [SEP] b </s> <mask> c", "don't  stop", " x\ty\n"),
    *("\uff27\uff2f\uff2f\uff24 \ufb01ne\u2026", "\n good\r\n  soup "),
    *(("good", "bad soup"), ("e\u0301t\u00e9 [MASK]", "\U0001f600 a"), ("good " * 9, "bad"), ("a", "bad " * 9)),
]


def _special(tokens: list[str]) -> list[AddedToken]:
    return [AddedToken(token, special=True, normalized=False) for token in tokens]


def _word_pieces(special: list[str] = BERT, mask: str | None = None) -> Tokenizer:
    letters = "abcdefghijklmnopqrstuvwxyzGS\u00f6\u00e9\u4e2d!'."
    pieces = [
        *special,
        *letters,
        *(f"##{letter}" for letter in letters),
        "good",
        "soup",
        *([] if mask is None else [mask]),
    ]
    tokenizer = Tokenizer(models.WordPiece({piece: place for place, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.add_special_tokens(_special(special))
    if mask is not None:
        tokenizer.add_special_tokens([AddedToken(mask, lstrip=True, normalized=False)])
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return tokenizer


def _bytes() -> Tokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: place for place, token in enumerate([*ROBERTA[:4], *alphabet, "oo", "\u0120s", "<mask>"])}
    merges = [("o", "o"), ("\u0120", "s")]
    tokenizer = Tokenizer(
        models.BPE(vocabulary, merges, continuing_subword_prefix="", end_of_word_suffix="", fuse_unk=False)
    )
    tokenizer.add_special_tokens([*_special(ROBERTA[:4]), AddedToken("<mask>", lstrip=True, normalized=False)])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), True, False)
    return tokenizer


def _mpnet() -> Tokenizer:
    """Returns what transformers 4 makes; version 5 makes a RobertaProcessing, which gives the same ids."""
    tokenizer = _word_pieces(["<s>", "<pad>", "</s>", "[UNK]"], "<mask>")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s>:0 $A:0 </s>:0",
        pair="<s>:0 $A:0 </s>:0 </s>:0 $B:1 </s>:1",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    return tokenizer


def _pieces(special: list[str], masks: list[AddedToken], unknown: int) -> Tokenizer:
    pieces = [*special, "\u2581", "\u2581good", *"abcdefghijklmnopqrstuvwxyz", "oo"]
    scores = [(piece, 0.0 if place < len(special) else -float(place)) for place, piece in enumerate(pieces)]
    scores += [(mask.content, 0.0) for mask in masks]
    tokenizer = Tokenizer(models.Unigram(scores, unk_id=unknown, byte_fallback=False))
    tokenizer.add_special_tokens([*_special(special), *masks])
    return tokenizer


def _template(cls: tuple[str, int], sep: tuple[str, int], pair: str) -> processors.TemplateProcessing:
    single = f"{cls[0]}:0 $A:0 {sep[0]}:0"
    return processors.TemplateProcessing(single=single, pair=f"{single} {pair}", special_tokens=[cls, sep])


def _deberta(pair: str = "$B:1 [SEP]:1") -> Tokenizer:
    """Returns what transformers 4 makes; version 5 separates the texts of a pair by two tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: place for place, token in enumerate(["[CLS]", "[PAD]", "[SEP]", "[UNK]", *alphabet, "oo"])}
    tokenizer = Tokenizer(
        models.BPE(vocabulary, [("o", "o")], continuing_subword_prefix="", end_of_word_suffix="", fuse_unk=False)
    )
    tokenizer.add_special_tokens([*_special(list(vocabulary)[:4]), AddedToken("[MASK]", lstrip=True, normalized=False)])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = _template(("[CLS]", 0), ("[SEP]", 2), pair)
    return tokenizer


def _deberta_v3(*parts: normalizers.Normalizer) -> Tokenizer:
    """Returns a tokenizer with the normalizer of transformers 4, or with other parts."""
    kept = normalizers.Strip(), normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")
    tokenizer = _pieces(["[PAD]", "[CLS]", "[SEP]", "[UNK]"], _special(["[MASK]"]), 3)
    tokenizer.normalizer = normalizers.Sequence(list(parts or kept))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(prepend_scheme="always")])
    tokenizer.post_processor = _template(("[CLS]", 1), ("[SEP]", 2), "$B:1 [SEP]:1")
    return tokenizer


def _deberta_v3_of_transformers_5() -> Tokenizer:
    spaces = normalizers.Replace(Regex(r"\s{2,}|[\n\r\t]"), " ")
    return _deberta_v3(spaces, normalizers.NFC(), normalizers.Strip(left=False, right=True))


def _camembert() -> Tokenizer:
    special = ["<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED", "<s>", "</s>"]
    tokenizer = _pieces(special, [AddedToken("<mask>", lstrip=True, special=True, normalized=False)], 3)
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.post_processor = _template(("<s>", 5), ("</s>", 6), "</s>:0 $B:0 </s>:0")
    return tokenizer


def _unigram() -> Tokenizer:
    tokenizer = _pieces(ROBERTA[:4], [AddedToken("<mask>", lstrip=True, normalized=False)], 3)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return tokenizer


# class -> its backend, and the family of a model that has it; the names with "Fast" are files of transformers 4
CLASSES = {
    "BertTokenizer": (_word_pieces, "bert"),
    "BertTokenizerFast": (_word_pieces, "bert"),
    "ElectraTokenizer": (_word_pieces, "electra"),
    "DistilBertTokenizer": (_word_pieces, "distilbert"),
    "RobertaTokenizer": (_bytes, "roberta"),
    "MPNetTokenizer": (_mpnet, "mpnet"),
    "XLMRobertaTokenizer": (_unigram, "xlm-roberta"),
    "CamembertTokenizerFast": (_camembert, "camembert"),
    "DebertaTokenizer": (lambda: _deberta("[SEP]:0 $B:0 [SEP]:0"), "deberta"),
    "DebertaTokenizerFast": (_deberta, "deberta"),
    "DebertaV2Tokenizer": (_deberta_v3_of_transformers_5, "deberta-v2"),
    "DebertaV2TokenizerFast": (_deberta_v3, "deberta-v2"),
}


def written(folder: Path, name: str) -> dict[str, bytes]:
    """Writes the files of a tokenizer of a class, or of a kind in `BACKENDS`, and returns their contents."""
    if name in CLASSES:
        CLASSES[name][0]().save(str(folder / "tokenizer.json"))
        (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": name, "model_max_length": 40}))
    else:
        fast_tokenizer(name).save_pretrained(folder)
        settings = json.loads((folder / "tokenizer_config.json").read_text())
        settings.pop("model_input_names", None)
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return {path.name: path.read_bytes() for path in folder.iterdir() if is_tokenizer_file(path.name)}


def rows(tokenizer) -> list:
    encoder = encoder_of(tokenizer)
    return [encoder.encode(TEXTS, limit) for limit in (None, 6, 7, 12)]


def edited(files: dict[str, bytes], file: str, change) -> dict[str, bytes]:
    contents = json.loads(files.get(file, b"{}"))
    change(contents)
    return {**files, file: json.dumps(contents).encode()}


def _settings(**values):
    return lambda files: edited(files, "tokenizer_config.json", lambda settings: settings.update(values))


def _part(name, **values):
    return lambda files: edited(files, "tokenizer.json", lambda contents: (contents[name] or {}).update(values))


def _replaced(**parts):
    return lambda files: edited(files, "tokenizer.json", lambda contents: contents.update(parts))


def _without_class(files):
    return edited(files, "tokenizer_config.json", lambda settings: settings.pop("tokenizer_class", None))


CHANGES = {
    "nothing": lambda files: files,
    "no class": _without_class,
    "class of transformers 4": _settings(tokenizer_class="PreTrainedTokenizerFast"),
    "class of transformers 5": _settings(tokenizer_class="TokenizersBackend"),
    "case kept": _settings(do_lower_case=False),
    "accents kept": _settings(strip_accents=False),
    "accents stripped": _settings(strip_accents=True, do_lower_case=False),
    "Chinese kept together": _settings(tokenize_chinese_chars=False),
    "case kept in the file alone": _part("normalizer", lowercase=False),
    "controls kept": _part("normalizer", clean_text=False),
    "no normalizer": _replaced(normalizer=None),
    "lower case": _replaced(normalizer={"type": "Lowercase"}),
    "split at spaces": _replaced(pre_tokenizer={"type": "WhitespaceSplit"}),
    "prefix in the file": _part("pre_tokenizer", add_prefix_space=True),
    "prefix in the settings": _settings(add_prefix_space=True),
    "no prefix in the settings": _settings(add_prefix_space=False),
    "regex off": _part("pre_tokenizer", use_regex=False),
    "no special tokens": _replaced(post_processor=None),
    "bert's processor": _replaced(post_processor={"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]}),
    "another processor": _replaced(post_processor={"type": "BertProcessing", "sep": ["a", 6], "cls": ["[CLS]", 2]}),
    "cut at the left": _settings(truncation_side="left"),
    "cut at the left in the file": _replaced(
        truncation={"direction": "Left", "max_length": 5, "strategy": "LongestFirst", "stride": 0}
    ),
    "special tokens split": _settings(split_special_tokens=True),
    "no types": _settings(model_input_names=["input_ids", "attention_mask"]),
    "types": _settings(model_input_names=["input_ids", "token_type_ids", "attention_mask"]),
    "another token": _settings(sep_token="good"),
    "a new token": _settings(mask_token="<new>"),
    "more tokens": _settings(additional_special_tokens=["good"]),
    "extra tokens": _settings(extra_special_tokens=["<other>"]),
    "known extra tokens": _settings(additional_special_tokens=["[SEP]"]),
    "added tokens": _settings(
        added_tokens_decoder={"3": {"content": "[SEP]", "lstrip": True, "special": True, "normalized": False}}
    ),
    "bos": _settings(add_bos_token=True),
    "from slow": _settings(from_slow=True),
    "an older map": lambda files: edited(
        files, "special_tokens_map.json", lambda tokens: tokens.update(unk_token="[UNK]", sep_token="[SEP]")
    ),
    "a map that differs": lambda files: edited(
        files, "special_tokens_map.json", lambda tokens: tokens.update(sep_token="[CLS]")
    ),
    "older added tokens": lambda files: edited(files, "added_tokens.json", lambda tokens: tokens.update({"<x>": 5})),
    "word pieces without a sign": _part("model", continuing_subword_prefix="@@"),
    "dropout": _part("model", dropout=0.5),
    "another unknown token": _part("model", unk_token="a"),
    "another unknown id": _part("model", unk_id=5),
    "a token that is not special": lambda files: edited(
        files, "tokenizer.json", lambda contents: [token.update(special=False) for token in contents["added_tokens"]]
    ),
    "a token that takes spaces": lambda files: edited(
        files, "tokenizer.json", lambda contents: [token.update(rstrip=True) for token in contents["added_tokens"]]
    ),
    "added tokens with gaps": lambda files: edited(
        files,
        "tokenizer.json",
        lambda contents: contents["added_tokens"].append(
            {"id": 900, "content": "<far>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": True}
            | {"special": False}
        ),
    ),
}
# Taken without transformers, whatever the environment.
TAKEN = {
    *((name, change) for name in CLASSES for change in ("nothing", "no class", "cut at the left", "no types")),
    *((name, "special tokens split") for name in CLASSES),
    *(
        (name, change)
        for name in [*BACKENDS, *CLASSES]
        for change in ("nothing", "class of transformers 4", "class of transformers 5")
        if name != "no special tokens"
    ),
    *((name, change) for name in list(CLASSES)[:4] for change in ("case kept", "bert's processor", "an older map")),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", [*CLASSES, *BACKENDS])
def test_rows_equal_those_of_transformers(name, change, tmp_path):
    family = CLASSES[name][1] if name in CLASSES else "bert"
    files = CHANGES[change](written(tmp_path, name))
    settings = json.loads(files["tokenizer_config.json"])
    try:
        ours = file_tokenizer(files, settings, family, None)
    except BaseException:  # not standard, or damaged, also by a panic of the library
        assert (name, change) not in TAKEN
        return
    theirs = load_tokenizer(files, {"model_type": family}, tmp_path)
    if (name, change) == ("DistilBertTokenizer", "no class"):  # types differ between releases, and no one reads them
        theirs.model_input_names = ["input_ids", "attention_mask"]
    assert rows(ours) == rows(theirs)
    assert ours.truncation_side == theirs.truncation_side
    assert min(ours.model_max_length, 10**9) == min(theirs.model_max_length, 10**9)


@pytest.mark.parametrize("name", [*CLASSES, *(kind for kind in BACKENDS if kind != "no special tokens")])
def test_tokenizers_saved_by_transformers_are_read(name, tmp_path):
    family = CLASSES[name][1] if name in CLASSES else "bert"
    files = written(tmp_path, name)
    saved = load_tokenizer(files, {"model_type": family}, tmp_path)
    saved.save_pretrained(tmp_path / "again")
    files = {path.name: path.read_bytes() for path in (tmp_path / "again").iterdir() if is_tokenizer_file(path.name)}
    ours = file_tokenizer(files, json.loads(files["tokenizer_config.json"]), family, None)
    assert rows(ours) == rows(saved) == rows(load_tokenizer(files, {"model_type": family}, tmp_path))


def test_missing_tokenizer_file():
    with pytest.raises(NotStandardError, match=r"no tokenizer\.json"):
        file_tokenizer({"vocab.txt": b"a"}, {}, "bert", None)
    assert isinstance(fast_tokenizer(), PreTrainedTokenizerFast)
