"""The HTTP server: protocols of other servers, limits, models and their replacement. Imports no torch."""
