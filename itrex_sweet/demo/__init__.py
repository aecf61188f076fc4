"""The demo, and a corpus and pretrained weights for tests, without a download."""
