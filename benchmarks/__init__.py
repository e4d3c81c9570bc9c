"""Benchmarks: how fast and lean training, evaluation and loading are, and how far from the machine's limit.

`python -m benchmarks` runs them (`make bench`), `benchmarks/README.md` explains them.
"""
