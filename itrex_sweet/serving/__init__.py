"""The server: HTTP dialects over the scheduler, metrics, logs, traces and the live page."""
