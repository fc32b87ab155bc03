"""One core per test process: two processes of two threads each would wait for one another."""

import os

os.environ["OMP_NUM_THREADS"] = "1"
