"""wsr: weight-space regions. Train, map, evaluate and merge populations of models fine-tuned from one checkpoint."""

import os

__version__ = "0.1.0"

# transformers gives us configurations and tokenizers, which need no PyTorch: its advice that there is none is no news.
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
