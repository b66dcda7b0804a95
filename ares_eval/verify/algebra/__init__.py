"""Algebra without a computer algebra system: a bounded LaTeX parser, exact evaluation, and comparison at points.

Most answers of benchmarks are numbers, short formulas and small structures of them. Two formulas are the same when
they agree at several random points (polynomial identity testing); rational arithmetic is exact. What this cannot
read or decide goes to sympy in a worker. Nothing here imports sympy.
"""
