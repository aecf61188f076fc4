"""Putting exits on a Hugging Face model and training them."""
