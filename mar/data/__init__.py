"""Data sets: one file per kind, all giving a ``mar.data.base.Data``."""
