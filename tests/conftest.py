"""What holds for every test."""

from __future__ import annotations

import pytest
import torch

_THREADS = torch.get_num_threads()


@pytest.fixture(autouse=True)
def _threads_stay_as_they_were():
    """More threads, left by one test, slow every later one by up to twenty times on two busy cores."""
    yield
    if torch.get_num_threads() != _THREADS:
        torch.set_num_threads(_THREADS)
