"""The per-exit subgraphs as files for other runtimes, with a description of how they chain."""
