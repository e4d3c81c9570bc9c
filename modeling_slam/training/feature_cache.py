"""The frozen encoder's output, computed once and kept for every epoch, LoRA setting and run of a study.

    python train.py recipes/nl-medium.yaml --cache_features cache --cache_depths 24,22,20

Before training, the clips that the cache lacks go through an encoder of the deepest depth, which gives all
depths in one pass; then the encoder never runs again. A space of the store is named by the digest of all that
its frames depend on: every byte of the encoder's weights up to that depth, its config, types, how clips are
prepared. What does not fit is not stored, and the run computes it batch by batch, as without a cache.
"""

import contextlib
import dataclasses
import hashlib
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from torch.utils.data import DataLoader
from tqdm import tqdm

from modeling_slam import SlamAsrConfig, SlamAsrProcessor
from modeling_slam.common.cpu_products import use_onednn
from modeling_slam.common.numbers import check_numbers
from modeling_slam.data.collator import CLIP_DIGEST
from modeling_slam.data.frame_store import FrameReader, FrameStore, StoreFullError, clip_digests
from modeling_slam.model.audio_encoders import ENCODERS
from modeling_slam.model.audio_lengths import SAMPLING_RATE
from modeling_slam.model.checkpoints import encoder_tensors, lazy_tensors
from modeling_slam.model.sound_files import DECODING

logger = logging.getLogger("slam-asr")
FILL_BATCH_SIZE = 8
# Of the encoder's config, what changes no frame.
NO_SETTINGS = ("_name_or_path", "transformers_version")


@dataclass
class CacheArguments:
    """Cache of the frozen encoder's output"""

    cache_features: str | None = field(
        default=None,
        metadata={"help": "Directory that keeps the encoder's output, to be shared by the runs of a study."},
    )
    cache_depths: list[str] = field(
        default_factory=list,
        metadata={"help": "Numbers of kept layers to store in one pass, such as 24,22,20; this run's is."},
    )
    cache_max_gb: float = field(
        default=100.0, metadata={"help": "Size of that directory; what was used least recently goes first."}
    )

    def __post_init__(self):
        words = ",".join(map(str, self.cache_depths)).replace(" ", ",").split(",")
        if not all(word.isdecimal() and int(word) > 0 for word in words if word):
            raise ValueError(
                f"`cache_depths` must be numbers of layers like 24,22,20, got {self.cache_depths}."
            )
        self.depths = sorted({int(word) for word in words if word})
        if self.depths and self.cache_features is None:
            raise ValueError("`cache_depths` needs `cache_features`: the directory to keep them in.")
        check_numbers(self, ("cache_max_gb",), above=0)


@dataclass(frozen=True)
class ClipPlace:
    """Where a clip stands, and how long it is; its audio is read when it is needed."""

    digest: str
    seconds: float
    split: datasets.Dataset
    row: int


@dataclass(frozen=True)
class Encoding:
    """How a run's frozen encoder computes: the types of its weights and activations, its attention."""

    frozen_dtype: torch.dtype
    autocast: bool  # to bfloat16
    attention: str | None = None  # the encoder's default

    @property
    def stored_dtype(self) -> torch.dtype:
        """What the projector reads: autocast makes bfloat16 of its input."""
        return torch.bfloat16 if self.autocast else self.frozen_dtype


class FeatureCache:
    """The frozen encoder's output for the clips of one run, in the directory `arguments.cache_features`.

    Args:
        states_at: keep in its place what so many layers hand up, for the trained layers above them.

    Raises:
        ValueError: a depth that the encoder does not have.
    """

    def __init__(
        self,
        arguments: CacheArguments,
        config: SlamAsrConfig,
        processor: SlamAsrProcessor,
        encoding: Encoding,
        states_at: int = 0,
    ):
        self.store = FrameStore(str(arguments.cache_features))
        self.max_bytes = int(arguments.cache_max_gb * 1e9)
        self.config, self.processor, self.encoding = config, processor, encoding
        self.encoder_class = ENCODERS[config.audio_config.model_type]
        self.holds_states = states_at > 0
        self.stored_dtype = encoding.frozen_dtype if self.holds_states else encoding.stored_dtype
        self.depth = states_at or config.num_encoder_layers
        self.depths = [self.depth] if self.holds_states else sorted({*arguments.depths, self.depth})
        layers, all_layers = config.kept_encoder_layers, list(range(config.audio_config.num_hidden_layers))
        if layers == all_layers[: self.depth]:  # the lowest ones: deeper depths go on from there
            layers = all_layers
        if self.depths[-1] > len(layers):
            raise ValueError(
                f"`cache_depths` names {self.depths[-1]} layers, the encoder has {len(layers)} to keep."
            )
        base = lazy_tensors(str(config.audio_model_id), revision=config.audio_model_revision)
        kept = encoder_tensors(base, config.audio_config, layers[: self.depths[-1]])
        self.weights = {name.removeprefix("encoder."): tensor for name, tensor in kept.items()}
        self.spaces = dict(zip(self.depths, self._spaces(), strict=True))

    def _spaces(self) -> Iterator[str]:
        """The name of each depth's space."""
        digests = {name: tensor_digest(tensor) for name, tensor in sorted(self.weights.items())}
        settings = frame_settings(self.config, self.processor)
        settings |= {"encoding": dataclasses.astuple(self.encoding)}
        settings |= {"states": True} if self.holds_states else {}
        for depth in self.depths:
            below = {name: digests[name] for name in self._weights_of(depth)}
            text = json.dumps([settings, below], sort_keys=True, default=str)
            yield f"{depth:02d}-layers-{hashlib.sha256(text.encode()).hexdigest()[:24]}"

    def fill(self, splits: dict[str, Any], num_workers: int) -> tuple[dict[str, Any], FrameReader]:
        """Compute what is missing. Returns the splits with the column that names their clips, and a reader.

        Under `accelerate launch` each process computes its share.

        Raises:
            StoreFullError: the frames of all depths do not fit into `cache_max_gb`, or on the disk.
        """
        splits = with_digests(splits)
        return splits, self._fill(splits, self.depths, num_workers)

    def fill_what_fits(
        self, splits: dict[str, Any], num_workers: int
    ) -> tuple[dict[str, Any], FrameReader | None]:
        """As `fill`; where not all depths fit, this run's alone, and where it does not, there is no reader.

        The log has a warning then: the run is slower, and its result the same but for rounding.
        """
        splits = with_digests(splits)
        for depths in [self.depths] if self.depths == [self.depth] else [self.depths, [self.depth]]:
            try:
                return splits, self._fill(splits, depths, num_workers)
            except StoreFullError as error:
                goes_on = (
                    "The run goes on without the cache and encodes each batch anew."
                    if depths == [self.depth]
                    else f"This run's depth, {self.depth} layers, is stored if it fits alone."
                )
                if PartialState().is_main_process:
                    logger.warning("%s %s", error, goes_on)
        return splits, None

    def _fill(self, splits: dict[str, Any], depths: list[int], num_workers: int) -> FrameReader:
        state = PartialState()
        clips = {clip.digest: clip for split in splits.values() for clip in clip_places(split)}
        with self.store.lock() if state.is_main_process else contextlib.nullcontext():
            state.wait_for_everyone()
            readers = {depth: self.store.reader(self.spaces[depth]) for depth in depths}
            in_use = {shard for reader in readers.values() for shard in reader.hold(clips)}
            lacking = [
                clip for reader in readers.values() for digest, clip in clips.items() if digest not in reader
            ]  # once for each depth
            missing = list({clip.digest: clip for clip in lacking}.values())
            if missing:
                self._make_room(sum(map(self._bytes, lacking)), in_use)
                self._encode(missing[state.process_index :: state.num_processes], readers, num_workers)
            state.wait_for_everyone()
            # Under the lock: once it is released, another run may need the room.
            reader = self.store.reader(self.spaces[self.depth])
            reader.hold(clips)
            state.wait_for_everyone()
        logger.info(
            "Encoder frames: %d clips computed, %d in the cache", len(missing), len(clips) - len(missing)
        )
        return reader

    def _make_room(self, wanted_bytes: int, in_use: set[Path]) -> None:
        """The main process does, and where it cannot, all processes raise."""
        full: list[StoreFullError | None] = [None]
        if PartialState().is_main_process:
            try:
                self.store.make_room(wanted_bytes, self.max_bytes, in_use)
            except StoreFullError as error:
                full = [error]
        broadcast_object_list(full)
        if full[0] is not None:
            raise full[0]

    def _bytes(self, clip: ClipPlace) -> int:
        """Of its frames at one depth."""
        seconds = max(clip.seconds, self.processor.pad_to_seconds or 0)
        frames = self.config.audio_geometry.frames_of_samples(round(seconds * SAMPLING_RATE))
        return frames * self.config.audio_config.hidden_size * self.stored_dtype.itemsize

    @torch.no_grad()
    def _encode(self, missing: list[ClipPlace], readers: dict[int, FrameReader], num_workers: int) -> None:
        depths = list(readers)
        device, encoder = run_device(), self.encoder(depths[-1])
        encode = encoder.states if self.holds_states else encoder.at_depths
        longest_first: Any = sorted(missing, key=lambda clip: -clip.seconds)
        loader = DataLoader(
            longest_first,
            FILL_BATCH_SIZE,
            collate_fn=FeatureCollator(self.processor),
            num_workers=num_workers,
        )
        progress = tqdm(loader, desc="encoding", unit="batch", disable=not PartialState().is_main_process)
        with contextlib.ExitStack() as stack:
            writers = {depth: stack.enter_context(self.store.writer(self.spaces[depth])) for depth in depths}
            for digests, features, mask in progress:
                # Around the encoder alone: the features, made in the workers, must not be in bf16.
                with torch.autocast(device.type, torch.bfloat16, enabled=self.encoding.autocast):
                    by_depth, frame_mask = encode(features.to(device), mask.to(device), depths)
                lengths = frame_mask.sum(dim=1).tolist()
                for depth, frames in zip(depths, by_depth, strict=True):
                    frames = frames.to("cpu", self.stored_dtype)
                    for digest, clip, length in zip(digests, frames, lengths, strict=True):
                        if digest not in readers[depth]:
                            writers[depth].add(digest, clip[:length])

    def encoder(self, depth: int | None = None) -> Any:
        """The frozen encoder of `depth` layers, this run's if not given, on the run's device."""
        depth = depth or self.depth
        audio_config = self.config.audio_config
        config = audio_config.from_dict(audio_config.to_dict(), attn_implementation=self.encoding.attention)
        with torch.device("meta"):
            encoder = self.encoder_class(config, depth)
        weights = {name: self.weights[name][...] for name in self._weights_of(depth)}
        dtype = self.encoding.frozen_dtype
        encoder.load_state_dict(
            {name: t.to(dtype) if t.is_floating_point() else t for name, t in weights.items()}, assign=True
        )
        use_onednn(encoder.requires_grad_(False))
        return encoder.eval().to(run_device())

    def _weights_of(self, depth: int) -> list[str]:
        """The names of an encoder's weights that has the lowest `depth` layers."""
        prefix = self.encoder_class.layer_prefix
        return [
            name
            for name in sorted(self.weights)
            if not name.startswith(prefix) or int(name.removeprefix(prefix).split(".")[0]) < depth
        ]


@dataclass(frozen=True)
class FeatureCollator:
    processor: SlamAsrProcessor

    def __call__(self, clips: list[ClipPlace]) -> tuple[list[str], torch.Tensor, torch.Tensor]:
        rows = [clip.split[clip.row] for clip in clips]
        batch = self.processor([row["audio"] for row in rows], language=[row.get("language") for row in rows])
        return [clip.digest for clip in clips], batch["input_features"], batch["input_features_mask"]


def run_device() -> torch.device:
    return PartialState().device or torch.device("cpu")


def with_digests(splits: dict[str, Any]) -> dict[str, Any]:
    """The splits with the column that says under which name a clip's frames are stored."""
    return {
        name: split
        if CLIP_DIGEST in split.column_names
        else split.add_column(CLIP_DIGEST, list(clip_digests(split)))
        for name, split in splits.items()
    }


def clip_places(split: datasets.Dataset) -> Iterator[ClipPlace]:
    for row, (digest, seconds) in enumerate(zip(split[CLIP_DIGEST], split["duration"], strict=True)):
        yield ClipPlace(digest, seconds, split, row)


def frame_settings(config: SlamAsrConfig, processor: SlamAsrProcessor) -> dict[str, Any]:
    """What an encoder's frames of a clip depend on beside its weights and how it computes."""
    audio_config = config.audio_config.to_dict()
    return {
        "encoder": {name: value for name, value in audio_config.items() if name not in NO_SETTINGS},
        "geometry": dataclasses.astuple(config.audio_geometry),
        "decoding": DECODING,
        "features": processor.feature_extractor.to_dict(),
        "pad_to_seconds": processor.pad_to_seconds,
    }


def tensor_digest(tensor: Any) -> str:
    """SHA-256 of type, shape and every byte of an unread tensor."""
    values = tensor[...].contiguous()
    described = f"{values.dtype} {tuple(values.shape)} ".encode()
    return hashlib.sha256(described + values.view(torch.uint8).numpy().tobytes()).hexdigest()
