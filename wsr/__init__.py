"""wsr: weight-space regions. Train, map, evaluate and merge populations of models fine-tuned from one checkpoint."""

__version__ = "0.1.0"
