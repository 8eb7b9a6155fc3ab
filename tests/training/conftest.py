"""Small networks run fastest, and most alike, on one thread."""

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """One thread for the whole session of this folder."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
