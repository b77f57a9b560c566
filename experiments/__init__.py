"""Experiments: one module, one claim."""

import os

# transformers is here for tokenizers; that PyTorch is absent is no news.
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
