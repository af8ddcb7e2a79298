"""Audio formats, resampling, G.711 and files: pure functions and small objects over bytes, without asyncio."""

import os

# OpenBLAS reads this once, while numpy loads. Its default is a thread per core, and for matrices as small as ours
# the hand-over between threads costs several times the arithmetic; a value the user has set is left alone.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
