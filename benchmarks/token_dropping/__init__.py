"""Token dropping between layers, with early exit: accuracy, token-layers and time."""
