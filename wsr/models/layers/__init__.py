"""The pieces that architectures share."""
