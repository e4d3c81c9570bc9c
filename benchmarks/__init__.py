"""Benchmarks: how fast and lean training, evaluation and loading are, beside plain ways and older code.

`python -m benchmarks` runs them (`make bench`), `benchmarks/README.md` explains them.
"""
