"""Python binding of the native engine. Imports neither torch nor transformers."""
