"""Tests of fingerprints of data sets, which find shared rows in sets of any size."""

import numpy as np
import pytest

from itrex_sweet.artifact import fingerprints
from itrex_sweet.artifact.fingerprints import Fingerprints, parse_fingerprints, write_fingerprints
from itrex_sweet.errors import ArtifactError


def rows(start: int, stop: int) -> list[list[int]]:
    return [[2, *divmod(row, 97), 3] for row in range(start, stop)]


def test_share_of_common_rows_is_exact_with_all_hashes():
    ours, theirs = Fingerprints.of(rows(0, 100)), Fingerprints.of(rows(75, 500))
    assert ours.overlap(theirs) == 0.25
    assert theirs.overlap(ours) == pytest.approx(25 / 425)
    assert ours.overlap(ours) == 1.0
    assert Fingerprints.of([]).overlap(ours) == 0.0


def test_order_and_repeats_do_not_matter():
    once, twice = Fingerprints.of(rows(0, 9)), Fingerprints.of(rows(0, 9)[::-1] * 2)
    np.testing.assert_array_equal(once.hashes, twice.hashes)
    assert once.rows == twice.rows == 9
    assert Fingerprints.of([[1, 2, 3]]).overlap(Fingerprints.of([[1, 2], [1, 2, 4], [1, 2, 3, 0]])) == 0.0


@pytest.mark.parametrize("kept", [200, 1000])
def test_share_is_estimated_with_some_hashes(monkeypatch, kept):
    monkeypatch.setattr(fingerprints, "MAX_HASHES", kept)
    large, small = Fingerprints.of(rows(0, 8000)), Fingerprints.of(rows(7000, 9000))
    assert len(large.hashes) == kept
    assert small.overlap(large) == pytest.approx(0.5, abs=4 * (0.25 / (kept / 4)) ** 0.5)
    assert large.overlap(small) == pytest.approx(0.125, abs=4 * (0.11 / (kept / 4)) ** 0.5)


def test_round_trip_and_damaged_file(tmp_path):
    path = tmp_path / "fingerprints.safetensors"
    sets = {"training": Fingerprints.of(rows(0, 50)), "reporting": Fingerprints.of(rows(50, 60))}
    write_fingerprints(path, sets)
    again = parse_fingerprints(path.read_bytes(), path)
    assert again["training"].rows == 50
    assert again["training"].overlap(sets["training"]) == 1.0
    assert again["reporting"].overlap(sets["training"]) == 0.0
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ArtifactError, match="cannot be read"):
        parse_fingerprints(path.read_bytes(), path)
