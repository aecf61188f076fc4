"""INT8 quantization of float32 artifacts with Neural Compressor; the only package that imports it."""

from itrex_sweet.extras import require_installed

require_installed("torch", "quantization")
require_installed("transformers", "quantization")

from itrex_sweet.quantization.quantizer import SweetQuantizer

__all__ = ["SweetQuantizer"]
