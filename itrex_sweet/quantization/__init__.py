"""From a float32 artifact to an INT8 one, with Neural Compressor; the only room that imports it."""

from itrex_sweet.extras import require_installed

require_installed("torch", "quantization")
require_installed("transformers", "quantization")

from itrex_sweet.quantization.quantizer import SweetQuantizer

__all__ = ["SweetQuantizer"]
