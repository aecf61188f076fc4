"""Tests of the demo corpus: sizes, balance, disjoint splits; word counts solve the plain level only."""

import hashlib
import math
import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable

import pytest

from itrex_sweet.demo import phrases
from itrex_sweet.demo.corpus import LEVELS, MAX_ROWS, SHARES, SPLITS, Review, make_corpus
from itrex_sweet.errors import ConfigError

HARD = ("contrasted", "mixed", "ironic")


@pytest.fixture(scope="module")
def corpus():
    return make_corpus()


@pytest.fixture(scope="module")
def largest():
    return make_corpus(8000, 2000, 2000, 2000, seed=1)


def naive_bayes(train: list[Review], test: list[Review], features: Callable[[Review], Iterable[Hashable]]) -> float:
    """Returns the accuracy on `test` of a multinomial naive Bayes classifier on `features` of each review."""
    counts = (Counter(), Counter())
    for review in train:
        counts[review.label].update(features(review))
    seen = len(counts[0] | counts[1])
    totals = [sum(count.values()) + seen for count in counts]
    rows = Counter(review.label for review in train)

    def score(review: Review, label: int) -> float:
        words = [feature for feature in features(review) if counts[0][feature] or counts[1][feature]]
        return math.log(rows[label]) + sum(math.log((counts[label][word] + 1) / totals[label]) for word in words)

    return sum((score(review, 1) > score(review, 0)) == review.label for review in test) / len(test)


def words(review: Review) -> list[str]:
    return re.findall(r"[\w'-]+", review.text.lower())


def word_pairs(review: Review) -> list[tuple[str, str]]:
    return list(zip(words(review), words(review)[1:], strict=False))


def sentiment_tables() -> list[phrases.Pair]:
    return [
        *phrases.ADJECTIVES.values(),
        *phrases.VERDICTS.values(),
        *(domain.facts for domain in phrases.DOMAINS),
        *(domain.wishes for domain in phrases.DOMAINS),
        phrases.GENERAL,
        phrases.VERBS,
        phrases.LIKES,
        phrases.CONTENT,
        phrases.CHEERS,
        phrases.HAILS,
        phrases.ADVICE,
        phrases.FONDNESS,
    ]


def test_default_sizes_and_splits(corpus):
    assert {split: len(reviews) for split, reviews in corpus.items()} == {
        "train": 4000,
        "calibration": 3000,
        "test": 800,
        "traffic": 0,
    }
    assert tuple(corpus) == SPLITS


@pytest.mark.parametrize("sizes", [(0, 0, 0, 0), (1, 2, 3, 4), (7, 19, 101, 50), (1000, 333, 250, 100)])
def test_sizes_are_exact_and_cells_balanced(sizes):
    corpus = make_corpus(*sizes)
    assert tuple(len(corpus[split]) for split in SPLITS) == sizes
    for reviews in corpus.values():
        labels = Counter(review.label for review in reviews)
        assert abs(labels[0] - labels[1]) <= 1
        for level in LEVELS:
            labels = Counter(review.label for review in reviews if review.level == level)
            assert abs(labels[0] - labels[1]) <= 1
            assert abs(labels.total() - len(reviews) * SHARES[level] / 100) < 1


def test_shares_cover_the_levels():
    assert tuple(SHARES) == LEVELS
    assert sum(SHARES.values()) == 100


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("size", [-1, MAX_ROWS + 1])
def test_invalid_sizes(split, size):
    with pytest.raises(ConfigError, match=rf"{split}={size}: .* 0 to {MAX_ROWS}"):
        make_corpus(**{split: size})


def test_negative_seed():
    with pytest.raises(ConfigError, match="seed=-1"):
        make_corpus(seed=-1)


def test_corpus_depends_on_the_seed_only():
    assert make_corpus(50, 20, 20, seed=3) == make_corpus(50, 20, 20, seed=3)
    first, second = make_corpus(200, 0, 0, seed=3)["train"], make_corpus(200, 0, 0, seed=4)["train"]
    assert len({review.text for review in first} & {review.text for review in second}) < 20


def test_splits_do_not_depend_on_the_sizes_of_others():
    assert make_corpus(10, 20, 60)["test"] == make_corpus(90, 0, 60)["test"]


def test_digest_of_the_corpus():
    """The digest changes with every edit of the tables, and with nothing else."""
    corpus = make_corpus(300, 100, 100, seed=7)
    lines = [f"{r.text}\t{r.label}\t{r.level}\t{r.template}\n" for split in SPLITS for r in corpus[split]]
    assert hashlib.sha256("".join(lines).encode()).hexdigest()[:16] == "d7636e8ade22d477"


def test_order_of_labels_is_random(corpus):
    for reviews in filter(None, corpus.values()):
        half = reviews[: len(reviews) // 2]
        assert 0.4 < sum(review.label for review in half) / len(half) < 0.6
        assert {review.level for review in reviews[:200]} == set(LEVELS)


def test_texts_are_unique(largest):
    texts = [review.text.lower() for reviews in largest.values() for review in reviews]
    assert len(texts) == len(set(texts)) == 14000


def test_templates_are_spread_over_splits(largest):
    """Every template occurs in every split, about equally often."""
    templates = {level: len(phrases.TEMPLATES[level]) for level in LEVELS}
    for level in LEVELS:
        by_split = {split: [review for review in largest[split] if review.level == level] for split in SPLITS}
        everyone = Counter(review.template for reviews in by_split.values() for review in reviews)
        assert len(everyone) == templates[level]
        for reviews in by_split.values():
            counts = Counter(review.template for review in reviews)
            for template, count in everyone.items():
                expected = count * len(reviews) / everyone.total()
                assert abs(counts[template] - expected) < 5 * expected**0.5 + 1


def test_templates_have_both_labels_equally_often(largest):
    both = Counter((review.template, review.label) for reviews in largest.values() for review in reviews)
    rows = Counter(review.template for reviews in largest.values() for review in reviews)
    for template, count in rows.items():
        assert count < 10 or 0.05 < both[template, 1] / count < 0.95


def test_texts_are_complete_sentences(largest):
    for reviews in largest.values():
        for review in reviews:
            assert re.fullmatch(r"[A-Z][A-Za-z'.,;:!? -]*[.!?]", review.text), review
            assert not re.search(r"  | [.,;:!?]|[.!?] [a-z]|[.,;:][.,;:]|\b([a-z]+) \1\b", review.text), review
            assert not re.search(r"\b[Aa] [aeioAEIO]|\b[Aa]n (?!hour)[^aeioAEIO]", review.text), review
            assert 4 <= len(review.text.split()) <= 45, review


def test_lengths_vary(corpus):
    lengths = sorted(len(review.text.split()) for review in corpus["train"])
    assert lengths[len(lengths) // 20] <= 8
    assert lengths[-len(lengths) // 20] >= 24


def test_phrase_tables_are_complete():
    assert len(phrases.DOMAINS) >= 12
    for domain in phrases.DOMAINS:
        assert sum(map(len, domain.aspects.values())) >= 4
        assert set(domain.aspects) <= set(phrases.ADJECTIVES)
    for good, bad in sentiment_tables():
        assert len(good) == len(bad)
        assert not set(good) & set(bad)


@pytest.mark.parametrize("features", [words, word_pairs])
def test_word_counts_solve_the_plain_level_only(corpus, features):
    plain = [review for review in corpus["test"] if review.level == "plain"]
    hard = [review for review in corpus["test"] if review.level in HARD]
    assert naive_bayes(corpus["train"], plain, features) >= 0.85
    assert naive_bayes(corpus["train"], hard, features) <= 0.75


@pytest.mark.parametrize(
    "features",
    [
        lambda review: [len(review.text.split())],
        lambda review: [len(review.text) // 8],
        lambda review: re.findall(r"[^\w\s]", review.text),
        lambda review: [domain.noun for domain in phrases.DOMAINS if domain.noun in review.text],
        lambda review: [review.template.split("-")[0]],
    ],
    ids=["words", "characters", "punctuation", "domain", "level"],
)
def test_surface_features_do_not_predict_the_label(corpus, features):
    assert 0.43 <= naive_bayes(corpus["train"], corpus["test"], features) <= 0.57
