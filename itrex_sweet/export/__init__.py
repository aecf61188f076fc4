"""Exports the per-exit subgraphs to ONNX or TorchScript, with a description of how to run them."""
