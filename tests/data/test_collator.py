"""What no batch can be made of shows before a run."""

import datasets
import pytest

from modeling_slam.data.collator import check_lengths


def clips(*seconds: float) -> datasets.Dataset:
    return datasets.Dataset.from_dict({"duration": list(seconds)})


def test_lengths_that_cannot_be_prepared_are_refused(tiny_processor):
    check_lengths(clips(0.5, 30.0), tiny_processor)
    with pytest.raises(ValueError, match=r"30\.50 s and the encoder hears 30 s"):
        check_lengths(clips(1.0, 30.5), tiny_processor)
    tiny_processor.projector_stack, tiny_processor.projector_tail = 30, "drop"
    with pytest.raises(ValueError, match="makes no audio token"):
        check_lengths(clips(0.5, 30.0), tiny_processor)
