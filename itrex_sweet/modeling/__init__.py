"""`SweetModelForSequenceClassification`, the interface of artifacts to transformers."""

from itrex_sweet.extras import require_installed

require_installed("torch", "SweetModelForSequenceClassification")
require_installed("transformers", "SweetModelForSequenceClassification")

from itrex_sweet.modeling.model import SweetModelForSequenceClassification
from itrex_sweet.modeling.outputs import SweetClassifierOutput

__all__ = ["SweetClassifierOutput", "SweetModelForSequenceClassification"]
