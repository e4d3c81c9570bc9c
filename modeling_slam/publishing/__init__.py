"""From a checkpoint on disk to a model on the Hub: checked, described by a card, pushed in one commit.

`naming` what it is called, `release` which files go, `check` that strangers can load them, `evidence` and
`card` what is said about them, `hub` the push. `python -m modeling_slam.publishing` and `train.py
--push_to_hub` walk the same way through `publish`.
"""
