"""Tokenizers: one file per algorithm, all a ``mar.tokenizers.base.Tokenizer``."""
