"""Several processes: FSDP2 shares out encoder and LLM, and checkpoints are those of a single process.

    accelerate launch --config_file recipes/accelerate/fsdp.yaml train.py ...

Each layer of the encoder and the LLM is gathered when it computes and let go again; LoRA is shared out with
its layer. Projector and CTC head stay whole in every process: they are small, and FSDP2 takes no scalars, of
which the head has three. Their gradients are averaged here, once a step. Weights keep their types, so what is
frozen travels in its own and what is trained is summed in float32.

`ShardedTrainer` is a base of any trainer. Its checkpoints hold what those of one process hold, under the same
names, so a run can go on in another number of processes, and with or without FSDP.

Source: FSDP2, https://docs.pytorch.org/docs/stable/distributed.fsdp.fully_shard.html
"""

import contextlib
import os
from collections.abc import Generator, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from accelerate import DistributedType, PartialState
from accelerate.state import AcceleratorState
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy
from torch.distributed.fsdp.wrap import transformer_auto_wrap_policy
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import Trainer
from transformers.integrations.deepspeed import unset_hf_deepspeed_config
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME

from modeling_slam.model.audio_encoders import llm_layers
from modeling_slam.model.checkpoints import lazy_tensors
from modeling_slam.model.lora import is_trained

WHOLE = ("projector", "ctc_head")  # parts of the model that every process has
SHARDING = ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED")  # how `accelerate launch` asks for it


def check_sharding(run: Any, align_folds: int, quantization: str | None = None) -> None:
    """Refuse, beside `RunArguments`, what weights in shares cannot do.

    Raises:
        ValueError: the message names the flag, or the line of accelerate's configuration.
    """
    asked = shares_weights()
    if run.fsdp or run.deepspeed:
        raise ValueError(
            "`--fsdp` and `--deepspeed` are not taken: start by `accelerate launch --config_file "
            "recipes/accelerate/fsdp.yaml train.py ...`, or another file there."
        )
    if asked and align_folds > 1:
        raise ValueError(
            f"`--align_folds {align_folds}` reads the encoder outside of the LLM's passes, which needs whole "
            "weights: start with recipes/accelerate/ddp.yaml, or leave it out."
        )
    if asked and quantization not in (None, "none"):
        raise ValueError(
            f"`--quantization {quantization}` packs weights, and packed ones are not shared out: start with "
            "recipes/accelerate/ddp.yaml, or leave it out."
        )


def shares_weights() -> bool:
    """Whether `accelerate launch` asks for weights in shares."""
    return any(os.environ.get(name, "false").lower() == "true" for name in SHARDING)


@contextlib.contextmanager
def replicated() -> Generator[None]:
    """What trains in the block is whole in every process, and its gradients are averaged.

    For what is small beside the LLM: the next trainer is asked again whether it shares out its weights.
    """
    asked = {name: os.environ.pop(name) for name in SHARDING if name in os.environ}
    state: Any = PartialState()
    kind = state.distributed_type
    AcceleratorState._reset_state()
    if state.num_processes > 1:
        is_cpu = state.device.type == "cpu"
        state.distributed_type = DistributedType.MULTI_CPU if is_cpu else DistributedType.MULTI_GPU
    try:
        yield
    finally:
        AcceleratorState._reset_state()
        state.distributed_type = kind
        os.environ |= asked


def build_whole() -> None:
    """Models are built as in one process; DeepSpeed shares them out when training begins.

    transformers would build and read them in shares already under ZeRO-3, which our loader does not do.
    """
    unset_hf_deepspeed_config()


class ShardedTrainer(Trainer):
    """Under FSDP: trains as one process does, and reads and writes the checkpoints of one process."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._scalars: set[str] = set()
        if self.is_fsdp_enabled:
            plugin: Any = self.accelerator.state.fsdp_plugin
            if plugin.fsdp_version != 2 or plugin.cpu_ram_efficient_loading:
                raise ValueError(
                    "FSDP needs `fsdp_version: 2` and `fsdp_cpu_ram_efficient_loading: false`, as in "
                    "recipes/accelerate/fsdp.yaml."
                )
            share_out(plugin, self.model)

    def _prepare_for_training(self, *args: Any, **kwargs: Any) -> Any:
        model: Any = self.model
        if self.is_fsdp_enabled:
            for part in whole_parts(model):
                part.to(self.args.device)
        if self.is_deepspeed_enabled:  # it takes no scalars: while it trains they are vectors of one
            self._scalars = {name for name, weight in model.named_parameters() if not weight.dim()}
            for name in self._scalars:
                weight = model.get_parameter(name)
                weight.data = weight.data[None]
        prepared = super()._prepare_for_training(*args, **kwargs)
        if self.is_fsdp_enabled:  # where accelerate would have weights cast instead
            model.forward = self.accelerator.autocast()(model.forward)
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            gather_for_head(model)
            build_whole()  # accelerate has told transformers of ZeRO-3 again, and saving builds a skeleton
        return prepared

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss = super().training_step(*args, **kwargs)
        if self.is_fsdp_enabled and self.accelerator.sync_gradients:
            average_gradients(whole_parts(self.model))
        return loss

    def _clip_grad_norm(self, model: torch.nn.Module) -> Any:
        return whole(super()._clip_grad_norm(model))

    def _get_grad_norm(self, *args: Any, **kwargs: Any) -> Any:
        return whole(super()._get_grad_norm(*args, **kwargs))

    # ---------------------------------------------------------------- checkpoints

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        if not self.is_fsdp_enabled:
            super().save_model(output_dir, _internal_call)
            return
        weights = whole_weights(self.model)
        with as_built(self.model):
            self._save(output_dir, state_dict=weights)  # the main process writes

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        if state_dict is not None and self._scalars:
            scalars = {name: state_dict[name].reshape(()) for name in self._scalars if name in state_dict}
            state_dict = {**state_dict, **scalars}
        super()._save(output_dir, state_dict)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if not self.is_fsdp_enabled:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        state = whole_state(self.optimizer)
        if self.args.should_save:
            torch.save(state, Path(output_dir, OPTIMIZER_NAME))
            schedule: Any = self.lr_scheduler
            torch.save(schedule.state_dict(), Path(output_dir, SCHEDULER_NAME))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None or not self.is_fsdp_enabled:
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        optimizer: Any = self.optimizer
        schedule: Any = self.lr_scheduler
        state = torch.load(Path(checkpoint, OPTIMIZER_NAME), map_location="cpu", weights_only=True)
        optimizer.load_state_dict(shared_out_state(state, optimizer))
        schedule.load_state_dict(torch.load(Path(checkpoint, SCHEDULER_NAME), weights_only=True))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if self.is_fsdp_enabled:
            put_in(self.model, lazy_tensors(resume_from_checkpoint))
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_best_model(self) -> None:
        if self.is_fsdp_enabled:
            put_in(self.model, lazy_tensors(str(self.state.best_model_checkpoint)))
        else:
            super()._load_best_model()


def share_out(plugin: Any, model: Any) -> None:
    """Tell accelerate's FSDP plugin what of a SLAM-ASR model to share out, layer by layer."""
    layers = [*model.encoder.layers, *llm_layers(model.language_model)[1]]
    plugin.auto_wrap_policy = transformer_auto_wrap_policy
    plugin.transformer_cls_names_to_wrap = sorted({type(layer).__name__ for layer in layers})
    plugin.ignored_modules = whole_parts(model)
    # The model's types are what they are to be; autocast does the rest, as in one process.
    plugin.mixed_precision_policy = MixedPrecisionPolicy()


def gather_for_head(model: Any) -> None:
    """The CTC head reads the LLM's embeddings without calling them, so nothing would gather them.

    Under ZeRO-3 it calls them after all: only then is what DeepSpeed fetches ahead there in time.
    """
    embeddings = model.get_input_embeddings()
    look_up, called = embeddings.forward, []
    if isinstance(embeddings, FSDPModule):

        def forward(ids: torch.Tensor) -> torch.Tensor:
            embeddings.unshard()
            return look_up(ids)

    elif hasattr(embeddings.weight, "ds_id"):
        embeddings.register_forward_pre_hook(lambda *_: called.append(True))

        def forward(ids: torch.Tensor) -> torch.Tensor:
            return look_up(ids) if called and called.pop() else embeddings(ids)

        if getattr(model.ctc_head, "gate", None) is not None:
            model.ctc_head.register_forward_hook(
                lambda head, *_: None if head.training else gather(head.gate)
            )

    else:
        return
    embeddings.forward = forward


def gather(weight: Any) -> None:
    """Of ZeRO-3, a weight that `generate` reads outside of its layer's `forward`."""
    weight.all_gather(param_list=[weight])


def whole_parts(model: Any) -> list[torch.nn.Module]:
    return [part for name in WHOLE if (part := getattr(model, name, None)) is not None]


def average_gradients(parts: Iterable[torch.nn.Module]) -> None:
    """The mean over all processes, of parts that each of them has."""
    gradients = [weight.grad for part in parts for weight in part.parameters() if weight.grad is not None]
    if not gradients:
        return
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


def whole(value: Any) -> Any:
    """A tensor of which each process has a share, gathered in all; anything else as it is."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def own_share(value: torch.Tensor) -> torch.Tensor:
    """What this process has of a tensor."""
    return value.to_local() if isinstance(value, DTensor) else value


def like(value: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """A whole tensor, that every process has, as `own` is: shared out, of its type, on its device."""
    value = value.to(own.device, own.dtype)
    if not isinstance(own, DTensor):
        return value
    return distribute_tensor(value, own.device_mesh, own.placements, src_data_rank=None)


def whole_weights(model: Any) -> dict[str, torch.Tensor]:
    """The state of a model for `save_pretrained`; all processes call this.

    Frozen weights that a lean checkpoint leaves out are not gathered: they stand on the meta device.
    """
    weights = {}
    for name, tensor in model.state_dict().items():
        if not isinstance(tensor, DTensor):
            weights[name] = tensor
        elif model.config.is_lean and not is_trained(name, model.config):
            weights[name] = torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
        else:
            weights[name] = tensor.full_tensor().cpu()
    return weights


@contextlib.contextmanager
def as_built(model: Any) -> Generator[None]:
    """FSDP2 has put a class of its own in front of the model's, whose code is none to save."""
    sharded = type(model)
    model.__class__ = next(kind for kind in sharded.__mro__ if not issubclass(kind, FSDPModule))
    try:
        yield
    finally:
        model.__class__ = sharded


@torch.no_grad()
def put_in(model: Any, tensors: Mapping[str, Any]) -> None:
    """Set these weights of a model; `tensors` may be unread."""
    state = model.state_dict()
    for name, tensor in tensors.items():
        value = tensor[...]
        if value.shape != state[name].shape:
            raise RuntimeError(f"size mismatch for {name}: {list(value.shape)}, {list(state[name].shape)}")
        state[name].copy_(like(value, state[name]))


def whole_state(optimizer: Any) -> dict[str, Any]:
    """The state of an optimizer as that of one process; all processes call this."""
    state = optimizer.state_dict()
    moments = {
        number: {name: whole(value) for name, value in of_one.items()}
        for number, of_one in state["state"].items()
    }
    return state | {"state": moments}


def shared_out_state(state: dict[str, Any], optimizer: Any) -> dict[str, Any]:
    """The state of an optimizer that one process has saved, as this optimizer's parameters are shared out."""
    parameters = [weight for group in optimizer.param_groups for weight in group["params"]]
    moments = {
        number: {
            name: like(value, own) if torch.is_tensor(value) and value.shape == own.shape else value
            for name, value in state["state"][number].items()
        }
        for number, own in enumerate(parameters)
        if number in state["state"]
    }
    return state | {"state": moments}
