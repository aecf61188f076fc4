"""Running an artifact: packed rows, the early-exit loop and the backends that do the arithmetic."""
