"""One script per speed claim; each runs the peer beside us in the same run, one thread each, and prints a ratio."""

import os

# Before any numerical library is loaded: its thread pools are sized when it is imported.
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"
