"""The bounds of one question of algebra and of a worker process."""

CPU_SECONDS = 2.0
"""CPU time of one question. The slowest honest pairs seen take a fifth of it."""
WALL_FACTOR = 4.0
"""The wall limit is this many times the CPU limit: a backstop for an overloaded machine only."""
MEMORY_BYTES = 1 << 30
"""Address space of a worker."""
PAIRS_PER_WORKER = 2000
"""A worker is replaced after this many questions: sympy's caches only grow."""
START_SECONDS = 120.0
"""How long a worker may take to start: imports on a machine under heavy load."""
