"""Which of the tested candidates to take, and why there is none to take."""

from __future__ import annotations

from collections.abc import Sequence

from itrex_sweet.calibration.bounds import certified, mean_loss_interval
from itrex_sweet.calibration.budget import Budget
from itrex_sweet.calibration.guarantees import Guarantee, PairedPredictions, loss_counts
from itrex_sweet.calibration.result import Candidate
from itrex_sweet.errors import CalibrationError

TUNING_SHARE = 1 / 3  # of the rows; the others test


def select_candidate(
    candidates: Sequence[Candidate],
    said: Sequence[PairedPredictions],
    budget: Budget,
    promise: Guarantee | None,
    against: str | None = None,
) -> tuple[int, int | None]:
    """Place of the policy to take, and how many are certified.

    Args:
        candidates: from careful to bold, the full model first.
        said: what each answers to the testing rows.
        promise: of the budget; `None` where it promises nothing.
        against: name of the model that the promise is against; `None` for the full model.

    Raises:
        CalibrationError: nothing can be certified, or nothing certified keeps to the budget's limits.
    """
    if promise is None:
        within = [place for place, each in enumerate(candidates) if not _exceeded(each, budget)]
        if not within:
            cheapest = min(candidates, key=lambda each: each.cost)
            raise CalibrationError(f"no policy keeps to it: {_exceeded(cheapest, budget)}, by the boldest one found.")
        return min(within, key=lambda place: (candidates[place].counts.mean_loss, candidates[place].cost)), None
    if against is None:
        # The full model, first of the candidates, loses nothing by definition.
        passed = 1 + certified([each.p_value for each in candidates[1:]], budget.delta)
        if passed == 1:
            raise CalibrationError(_why_nothing(candidates, said, budget, promise))
    else:
        passed = certified([each.p_value for each in candidates], budget.delta)
        if passed == 0:
            raise CalibrationError(_why_not_even_full_depth(said[0], budget, promise, against))
    chosen = min(range(passed), key=lambda place: candidates[place].cost)
    if exceeded := _exceeded(candidates[chosen], budget):
        raise CalibrationError(
            f"no policy keeps to both: {exceeded}, by the cheapest one that is certified. Allow a larger drop or more "
            "time or layers, or calibrate on more rows."
        )
    return chosen, passed


def _exceeded(candidate: Candidate, budget: Budget) -> str | None:
    """The limit that a candidate does not keep to, in words."""
    if budget.max_layers is not None and candidate.mean_layers > budget.max_layers:
        return f"{candidate.mean_layers:.2f} layers on average, max_layers={budget.max_layers:g}"
    if budget.max_latency_ms is not None and candidate.milliseconds > budget.max_latency_ms:
        return f"{candidate.milliseconds:.3g} ms per row on average, max_latency_ms={budget.max_latency_ms:g}"
    return None


def _why_not_even_full_depth(full_depth: PairedPredictions, budget: Budget, promise: Guarantee, against: str) -> str:
    """The distance of the full model below the one that the promise is against, in words."""
    counts = loss_counts(full_depth)
    of_what = f"agreement with {against}"
    if budget.max_agreement_drop is None:
        of_what = f"{budget.what} against {against}"
    what = f"a drop of at most {100 * budget.epsilon:g} % of {of_what}"
    if budget.max_metric_drop is not None:
        seen = f"it is {100 * promise.drop(full_depth):.2f} points below on {counts.rows} testing rows"
    else:
        low, high = (100 * end for end in mean_loss_interval(counts, budget.delta))
        seen = (
            f"on {counts.rows} testing rows it lost {counts.lost} and won {counts.won}: "
            f"{100 * counts.mean_loss:.2f} % lost, between {low:.2f} and {high:.2f} % with "
            f"{100 * budget.confidence:g} % confidence"
        )
    needed = promise.rows_needed(full_depth)
    advice = (
        f"Some {needed} testing rows ({round(needed / (1 - TUNING_SHARE))} in all) like these would be enough."
        if needed is not None
        else "Train it better, or allow a larger drop."
    )
    return f"{what} cannot be certified even for this model at full depth: {seen}. {advice}"


def _why_nothing(
    candidates: Sequence[Candidate], said: Sequence[PairedPredictions], budget: Budget, promise: Guarantee
) -> str:
    what = f"a drop of at most {100 * budget.epsilon:g} % with {100 * budget.confidence:g} % confidence"
    if len(candidates) == 1:
        return (
            f"nothing beats running the full model: no exit saves more than its probe costs at an acceptable loss, so "
            f"there is no policy to promise {what} for. Run it with threshold 1."
        )
    counts = candidates[1].counts
    seen = f"the most careful policy lost {counts.lost} and won {counts.won} of {counts.rows} rows"
    if budget.max_metric_drop is not None:
        return f"{what} of {budget.what} cannot be certified on these rows: {seen}. Allow a larger drop, or give more."
    needed = promise.rows_needed(said[1])
    if needed is None:
        return f"{what} cannot be certified by any number of rows like these: {seen}. Allow a larger drop."
    return (
        f"{what} cannot be certified on {counts.rows} testing rows: {seen}. Some {needed} testing rows "
        f"({round(needed / (1 - TUNING_SHARE))} in all) like these would be enough."
    )
