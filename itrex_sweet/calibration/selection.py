"""Selects a policy from the tested candidates, or explains why none can be selected."""

from __future__ import annotations

from collections.abc import Sequence

from itrex_sweet.calibration.bounds import certified, mean_loss_interval
from itrex_sweet.calibration.budget import Budget
from itrex_sweet.calibration.guarantees import Guarantee, PairedPredictions, loss_counts
from itrex_sweet.calibration.result import Candidate
from itrex_sweet.errors import CalibrationError

TUNING_SHARE = 1 / 3  # of the rows fit temperatures and find candidates; the others test the candidates


def select_candidate(
    candidates: Sequence[Candidate],
    predictions: Sequence[PairedPredictions],
    budget: Budget,
    guarantee: Guarantee | None,
    against: str | None = None,
    recipe: str | None = None,
) -> tuple[int, int | None]:
    """Returns the index of the selected policy, and the number of certified candidates.

    Args:
        candidates: from conservative to aggressive, the full model first.
        predictions: of each candidate for the testing rows.
        guarantee: of the budget; `None` if it names no drop.
        against: name of the model that the policy is compared with; `None` for the same model at full depth.
        recipe: of the model's quantization, for the advice of an error.

    Raises:
        CalibrationError: no candidate can be certified, or no certified candidate is within the budget's limits.
    """
    if guarantee is None:
        within = [index for index, each in enumerate(candidates) if not _exceeded_limit(each, budget)]
        if not within:
            cheapest = min(candidates, key=lambda each: each.cost)
            raise CalibrationError(
                f"no policy is within the budget: the cheapest one found takes {_exceeded_limit(cheapest, budget)}."
            )
        return min(within, key=lambda index: (candidates[index].counts.mean_loss, candidates[index].cost)), None
    if against is None:
        # The full model, the first candidate, loses nothing by definition.
        num_certified = 1 + certified([each.p_value for each in candidates[1:]], budget.delta)
        if num_certified == 1:
            raise CalibrationError(_explain_no_candidate(candidates, predictions, budget, guarantee))
    else:
        num_certified = certified([each.p_value for each in candidates], budget.delta)
        if num_certified == 0:
            raise CalibrationError(_explain_full_depth(predictions[0], budget, guarantee, against, recipe))
    selected = min(range(num_certified), key=lambda index: candidates[index].cost)
    if exceeded := _exceeded_limit(candidates[selected], budget):
        raise CalibrationError(
            f"no policy is within both limits: the cheapest certified one takes {exceeded}. Allow a larger drop or "
            "more time or layers, or calibrate on more rows."
        )
    return selected, num_certified


def _exceeded_limit(candidate: Candidate, budget: Budget) -> str | None:
    """Returns a description of the limit that a candidate exceeds; `None` if it exceeds none."""
    if budget.max_layers is not None and candidate.mean_layers > budget.max_layers:
        return f"{candidate.mean_layers:.2f} layers on average, max_layers={budget.max_layers:g}"
    if budget.max_latency_ms is not None and candidate.milliseconds > budget.max_latency_ms:
        return f"{candidate.milliseconds:.3g} ms per row on average, max_latency_ms={budget.max_latency_ms:g}"
    return None


def _explain_full_depth(
    full_depth: PairedPredictions, budget: Budget, guarantee: Guarantee, against: str, recipe: str | None
) -> str:
    """Returns how far the full model is below the model that it is compared with."""
    counts = loss_counts(full_depth)
    target = f"agreement with {against}"
    if budget.max_agreement_drop is None:
        target = f"{budget.target} against {against}"
    drop = f"a drop of at most {100 * budget.epsilon:g} % of {target}"
    if budget.max_metric_drop is not None:
        observed = f"it is {100 * guarantee.drop(full_depth):.2f} points below on {counts.rows} testing rows"
    else:
        low, high = (100 * end for end in mean_loss_interval(counts, budget.delta))
        observed = (
            f"on {counts.rows} testing rows it lost {counts.lost} and won {counts.won}: "
            f"{100 * counts.mean_loss:.2f} % lost, between {low:.2f} and {high:.2f} % with "
            f"{100 * budget.confidence:g} % confidence"
        )
    needed = guarantee.rows_needed(full_depth)
    advice = _advise_rows(needed) if needed is not None else "Train it longer, or allow a larger drop."
    if recipe in ("static", "smooth"):
        advice += f" The model is quantized by the recipe {recipe!r}; 'dynamic' changes fewer answers."
    return f"{drop} cannot be certified even for this model at full depth: {observed}. {advice}"


def _explain_no_candidate(
    candidates: Sequence[Candidate], predictions: Sequence[PairedPredictions], budget: Budget, guarantee: Guarantee
) -> str:
    """Returns why no candidate besides the full model is certified."""
    drop = f"a drop of at most {100 * budget.epsilon:g} % with {100 * budget.confidence:g} % confidence"
    if len(candidates) == 1:
        return (
            "no policy is faster than the full model: no exit saves more than its probe costs at an acceptable loss, "
            f"so there is none to certify for {drop}. Use threshold=1, which always runs to full depth."
        )
    counts = candidates[1].counts
    observed = f"the most conservative policy lost {counts.lost} and won {counts.won} of {counts.rows} rows"
    if budget.max_metric_drop is not None:
        return (
            f"{drop} of {budget.target} cannot be certified on these rows: {observed}. Allow a larger drop, or "
            "calibrate on more rows."
        )
    needed = guarantee.rows_needed(predictions[1])
    if needed is None:
        return f"{drop} cannot be certified by a million rows like these: {observed}. Allow a larger drop."
    return f"{drop} cannot be certified on {counts.rows} testing rows: {observed}. {_advise_rows(needed)}"


def _advise_rows(testing_rows: int) -> str:
    return (
        f"About {testing_rows} testing rows ({round(testing_rows / (1 - TUNING_SHARE))} in total) like these would be "
        "enough."
    )
