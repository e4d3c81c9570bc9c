"""Is it right on this GPU, how fast, and in how much memory: random weights of the real sizes, made speech.

What is imported here is in every bundle (`bundle.py`): torch, transformers, peft, the model and the search,
and none of the libraries that read data.
"""
