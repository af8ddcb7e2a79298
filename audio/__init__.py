"""Audio formats, resampling, G.711 and files: functions and small classes over bytes, without asyncio."""

import os

# OpenBLAS reads this once, when numpy is imported. Its default is a thread per core; for small matrices, synchronizing
# the threads costs several times the arithmetic. A value that the user has set stays.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
