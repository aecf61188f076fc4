"""The class that users meet: an artifact used as people use a model of optimum."""

from itrex_sweet.extras import require_installed

require_installed("torch", "SweetModelForSequenceClassification")
require_installed("transformers", "SweetModelForSequenceClassification")

from itrex_sweet.modeling.model import SweetModelForSequenceClassification
from itrex_sweet.modeling.outputs import SweetClassifierOutput

__all__ = ["SweetClassifierOutput", "SweetModelForSequenceClassification"]
