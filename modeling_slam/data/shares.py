"""The split of a dataset for training, validation or testing, drawn from another where it has none.

A dataset may have no splits (a single file), or not all of them. Where nothing is said, one without any is
read whole: as training data by `train.py`, as the test by `eval.py`. `--validation_share` and `--test_share`
draw the split that is missing: from the training data if there are such, else from all; whole speakers where
they are known, so that nobody is heard in training and tested.
"""

import dataclasses
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Literal

from modeling_slam.data.arguments import DataArguments, OneDataset
from modeling_slam.data.clips import Clip, DataError, MissingSplitError, Source
from modeling_slam.data.sources import find_source

Role = Literal["train", "validation", "test"]


def open_split(one: OneDataset, arguments: DataArguments, role: Role) -> Source:
    """The clips of one of the datasets for one role, under the split that the arguments name for it.

    Raises:
        DataError: there is no such split and no share to draw it by.
    """
    shares = {
        name: share
        for name, share in (("test", arguments.test_share), ("validation", arguments.validation_share))
        if share
    }
    own = _open(one, arguments, role)
    if isinstance(own, MissingSplitError):
        if role not in shares:
            raise own if role == "train" else _no_way_to(role, one.dataset, own)
        whole = _open(one, arguments, "train")
        if isinstance(whole, MissingSplitError):
            raise whole
    elif own.split is None:
        if not shares and role != "validation":
            use = "the test" if role == "test" else "training"
            return _as_split(own, role, arguments, f"it has no splits: all of it is read for {use}")
        if role != "train" and role not in shares:
            raise _no_way_to(role, one.dataset, MissingSplitError(role, (), one.dataset))
        whole = own
    elif role != "train":
        return own
    else:
        whole = own
    if whole.split is not None:
        shares = {
            name: share
            for name, share in shares.items()
            if isinstance(_open(one, arguments, name), MissingSplitError)
        }
    return _share(whole, one.dataset, arguments, role, shares) if shares else whole


def _open(one: OneDataset, arguments: DataArguments, role: str) -> Source | MissingSplitError:
    try:
        return find_source(one.dataset).open_source(one.dataset, one, getattr(arguments, f"{role}_split"))
    except MissingSplitError as error:
        return error


def _as_split(source: Source, role: Role, arguments: DataArguments, note: str) -> Source:
    return dataclasses.replace(source, split=getattr(arguments, f"{role}_split"), note=note)


def _no_way_to(role: str, dataset: str, error: MissingSplitError) -> DataError:
    advice = {
        "validation": "To validate on a part of the training data, add --validation_share 0.1; to train "
        "without validation, --eval_strategy no.",
        "test": "Its clips are shared out already, so none is left for a test: add --test_share 0.1 to "
        "train.py and eval.py alike, test on --split validation, or give eval.py a file of its own.",
    }[role]
    if error.available and role == "test":
        advice = "To test on a part of the training data, add --test_share 0.1 to train.py and eval.py alike."
    return DataError(f"{error} {advice}")


def _share(
    whole: Source, dataset: str, arguments: DataArguments, role: Role, shares: Mapping[str, float]
) -> Source:
    """The clips of `whole` that the role gets: those drawn for it, or for training those that are left."""
    if whole.streaming:
        raise DataError(
            f"{dataset}: a stream cannot be shared out, as its speakers are not known before it ends. "
            f"Leave out --streaming, or --{' and --'.join(f'{name}_share' for name in shares)}."
        )
    rows = list(whole.clips)
    clips = [row for row in rows if isinstance(row, Clip)]
    speakers = {clip.speaker for clip in clips} - {None}
    by_speaker = len(speakers) > len(shares)
    groups = defaultdict(list)
    for clip in clips:
        groups[("speaker", clip.speaker) if by_speaker and clip.speaker else ("clip", clip.id)].append(clip)
    left = sorted(groups, key=repr)
    random.Random(arguments.subset_seed).shuffle(left)
    drawn = {}
    for name, share in shares.items():
        drawn[name] = _draw(left, {key: len(group) for key, group in groups.items()}, share * len(clips))
        left = [key for key in left if key not in drawn[name]]
    mine = drawn.get(role) or left
    ids = {id(clip) for key in mine for clip in groups[key]}
    told = ", ".join(f"--{name}_share {share:g}" for name, share in shares.items())
    heard = len({clip.speaker for key in mine for clip in groups[key]} - {None})
    of_speakers = f" of {heard} of {len(speakers)} speakers" if by_speaker else ""
    note = (
        f"{len(ids):,} of its {len(clips):,} clips{of_speakers}, by {told} and seed {arguments.subset_seed}"
    )
    kept = [row for row in rows if not isinstance(row, Clip) or id(row) in ids]
    return _as_split(dataclasses.replace(whole, clips=kept), role, arguments, note)


def _draw(groups: Sequence[tuple], sizes: Mapping[tuple, int], wanted: float) -> set[tuple]:
    """Groups in their order as long as they fit in; the smallest where none does. One at least is left."""
    drawn, count = set(), 0
    for key in groups[:-1]:
        if count + sizes[key] <= wanted:
            drawn.add(key)
            count += sizes[key]
    return drawn or ({min(groups, key=lambda key: sizes[key])} if len(groups) > 1 else set())
