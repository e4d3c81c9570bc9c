"""From a lean checkpoint directory to a full one, which loads without any base model.

Both formats are written by `save_pretrained` and described in docs/checkpoints.md; here is the way from one
to the other for files on disk.
"""

from pathlib import Path

from modeling_slam import SlamAsrForConditionalGeneration, SlamAsrProcessor


def write_full_checkpoint(source: Path, target: Path, merge_lora: bool = False, dtype: str = "auto") -> None:
    """Write the checkpoint `source` and its processor to `target` with every weight in it.

    Args:
        source: a checkpoint of either format.
        target: a directory that is empty or not there yet.
        merge_lora: add LoRA to the base weights instead of keeping it beside them.
        dtype: of the weights written, e.g. "bfloat16"; "auto" keeps those of `source`.

    Raises:
        ValueError: `target` holds something, or there is no LoRA to merge.
        OSError, RuntimeError: `source` does not load.
    """
    target = Path(target)
    if target.exists() and any(target.iterdir()):
        raise ValueError(f"{target} is not empty. Name a new directory for the full checkpoint.")
    model = SlamAsrForConditionalGeneration.from_pretrained(source, dtype=dtype)
    if merge_lora:
        model.merge_lora()
    model.config.self_contained = True
    model.save_pretrained(target)
    SlamAsrProcessor.from_pretrained(source).save_pretrained(target)
