"""For every test: models here are so tiny that threads would only wait for one another."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported, and for the processes that tests start
