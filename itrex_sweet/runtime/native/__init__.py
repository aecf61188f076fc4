"""The native engine's libraries: which may run here, and how they are called. Imports no torch."""
