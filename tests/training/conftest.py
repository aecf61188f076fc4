import os

import pytest
import torch
from transformers.utils import logging


@pytest.fixture(autouse=True)
def _one_thread_and_a_seed():
    launched_with = {name for name in os.environ if name.startswith("ACCELERATE_")}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    yield
    torch.set_num_threads(threads)
    for name in {name for name in os.environ if name.startswith("ACCELERATE_")} - launched_with:
        del os.environ[name]  # TrainingArguments leaves precision and compiler there for whoever comes next
