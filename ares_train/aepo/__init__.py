"""AEPO, the algorithm alone: pure functions over NumPy arrays, with torch twins in ``tensors`` as the
tests' oracle; no verl, no ray.

``step.shape`` is one training step on a page; ``config`` names every switch; docs/aepo.md has the formulas.
"""
