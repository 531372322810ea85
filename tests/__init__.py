"""The tests mirror the sources."""
