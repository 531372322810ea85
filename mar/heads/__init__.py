"""Heads: one context vector -> one distribution over one token. One algorithm a file; ``base.py`` has the contract."""
