"""`python -m benchmarks mission --out DIR`: the paper's own sizes, built for real, in how much memory.

Whisper medium with Qwen2.5-3B, random weights in bfloat16, 22 encoder layers and LoRA: base models are
written; one training step is made and a lean checkpoint saved; a stranger loads it by `AutoModel` with the
code beside the weights, and transcribes. Each step is a process of its own, so its peak is its own. Beside
it: what `slam-asr plan` said. On a CPU; 9 GB of disk. A step that is recorded is not made again.
"""

import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from benchmarks.gpu.sizes import MODELS, PROJECTOR, TINY_DEPTH, made_clips, write_base_models
from benchmarks.sides import REPOSITORY
from modeling_slam.common.command_line import clear_errors, parse_arguments
from modeling_slam.common.files import read_json, write_json
from modeling_slam.data.collator import SpeechCollator
from modeling_slam.training.arguments import LoraArguments, ModelArguments
from modeling_slam.training.assembly import build_config, build_model, build_processor

DESCRIPTION = "Whisper medium, 22 layers, and Qwen2.5-3B with LoRA: built, trained a step, saved and loaded."
USAGE = "python -m benchmarks mission --out DIR"
MODEL = "medium-22"
LLM = {"real": "3B", "tiny": "tiny"}
DTYPE = torch.bfloat16
FRESH_LOAD = REPOSITORY / "modeling_slam/publishing/fresh_load.py"
GIB = 2**30


@dataclass
class MissionArguments:
    """What is built, and where."""

    out: str = field(metadata={"help": "Directory of base models, checkpoint and mission.json."})
    size: Literal["real", "tiny"] = field(default="real", metadata={"help": "Tiny ones try this out."})
    batch_size: int = field(default=4, metadata={"help": "Clips of the training step."})
    clip_seconds: float = field(default=10.0, metadata={"help": "Length of each."})
    step: Literal["all", "write", "train"] = field(
        default="all", metadata={"help": "A step of it, in this process."}
    )


class Mission:
    """The steps `write` and `train`; `load` is a program of `publishing`."""

    def __init__(self, arguments: MissionArguments):
        self.arguments, self.out = arguments, Path(arguments.out)
        self.whisper, layers = MODELS[MODEL]
        self.layers = layers if arguments.size == "real" else layers // TINY_DEPTH
        self.checkpoint = self.out / "checkpoint"
        llm = LLM[arguments.size]
        self.bases = {
            "encoder": str(self.out / f"whisper-{self.whisper}"), "llm": str(self.out / f"llm-{llm}")
        }  # fmt: skip

    def write(self) -> dict[str, Any]:
        write_base_models(self.out, self.arguments.size, self.whisper, LLM[self.arguments.size], DTYPE)
        return {"base_gib": {name: gib(Path(place)) for name, place in self.bases.items()}}

    def train(self) -> dict[str, Any]:
        """Build as `train.py` does, one step of AdamW in bfloat16, a lean checkpoint."""
        encoder, llm = self.bases["encoder"], self.bases["llm"]
        model_args = ModelArguments(encoder=encoder, llm=llm, keep_layers=self.layers)
        config = build_config(model_args, LoraArguments())
        # The paper's projector, without a CTC head.
        config.update({**PROJECTOR, "projector_scale": 1.0, "llm_input": "projector", "drop_blanks": None})
        processor = build_processor(model_args, config)
        model = build_model(config, processor, model_args, bf16=True).train()
        seconds = (self.arguments.clip_seconds, self.arguments.clip_seconds)
        clips = made_clips(self.arguments.batch_size, seconds=seconds)
        for clip in clips:
            clip.pop("id")
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)
        batch = SpeechCollator(processor)(clips)
        with torch.autocast("cpu", DTYPE):
            loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        step_peak = peak_gib(resource.getrusage(resource.RUSAGE_SELF))
        model.save_pretrained(self.checkpoint)
        processor.save_pretrained(self.checkpoint)
        counts = model.parameter_counts()
        names = ("total", "trainable", "encoder_kept", "llm", "lora", "projector")
        return {
            "loss": round(float(loss.detach()), 4),
            "step_peak_gib": step_peak,  # saving reads the base models again, to leave out what is theirs
            "million_parameters": {name: round(counts[name] / 1e6, 2) for name in names},
            "is_lean": model.config.is_lean,
            "checkpoint_gib": gib(self.checkpoint),
        }

    def commands(self) -> dict[str, list[str]]:
        """Step -> the program that makes it; its last line of output, or its file, is what it found."""
        given = vars(self.arguments)
        flags = [word for name in given if name != "step" for word in (f"--{name}", str(given[name]))]
        own = [sys.executable, "-m", "benchmarks", "mission", *flags, "--step"]
        plan = [sys.executable, "-m", "modeling_slam.plan", "--keep_layers", str(self.layers)]
        plan += [word for name, place in self.bases.items() for word in (f"--{name}", place)]
        plan += [
            "--dataset",
            "none",
            "--projector_stack",
            "5",
            "--projector_context",
            "1",
            "--llm_input",
            "projector",
        ]
        plan += ["--align_epochs", "0", "--ctc_weight", "0", "--bf16", "true"]
        plan += ["--per_device_train_batch_size", str(self.arguments.batch_size)]
        plan += ["--max_seconds", str(self.arguments.clip_seconds)]
        fresh = [sys.executable, "-P", str(FRESH_LOAD), str(self.checkpoint), str(self.out / "loaded.json")]
        return {"write": [*own, "write"], "plan": plan, "train": [*own, "train"], "load": fresh}


def made(command: list[str], out: Path) -> dict[str, Any]:
    """Run a step; its seconds, the peak of its memory, and what it said.

    Raises:
        ChildProcessError: it failed; with the end of what it said.
    """
    variables = {"HF_MODULES_CACHE": str(out / "modules"), "HF_HUB_OFFLINE": "1"}
    log = out / "log.txt"
    start = time.monotonic()
    with log.open("w") as said:
        process = subprocess.Popen(
            command, stdout=said, stderr=subprocess.STDOUT, env=os.environ | variables, cwd=REPOSITORY
        )
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    text = log.read_text(errors="replace")
    if process.returncode:
        raise ChildProcessError(f"`{' '.join(command)}` ended with {process.returncode}:\n{text[-3000:]}")
    return {
        "seconds": round(time.monotonic() - start, 1),
        "peak_gib": peak_gib(usage),
        "said": text.strip().splitlines(),
    }


def peak_gib(usage: resource.struct_rusage) -> float:
    """Highest resident memory; Linux counts in KiB."""
    return round(usage.ru_maxrss * 1024 / GIB, 2)


def gib(directory: Path) -> float:
    return round(sum(file.stat().st_size for file in directory.rglob("*") if file.is_file()) / GIB, 4)


def run(mission: Mission) -> dict[str, Any]:
    """All steps, each recorded in `mission.json` when it is made."""
    out = mission.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    record = out / "mission.json"
    steps = read_json(record) if record.exists() else {}
    for name, command in mission.commands().items():
        if name in steps:
            continue
        found = made(command, out)
        said = found.pop("said")
        if name == "plan":
            found["plan"] = said[said.index("Parameters") :]  # warnings of libraries may come before it
        elif name == "load":
            loaded = read_json(out / "loaded.json")
            found |= {name: loaded[name] for name in ("dtype", "logit_difference")}
        else:
            found |= json.loads(said[-1])
        steps[name] = found
        write_json(record, steps)
    return steps


def table(steps: dict[str, Any]) -> str:
    rows = ["| step | seconds | peak GiB | found |", "| --- | --- | --- | --- |"]
    for name, found in steps.items():
        rest = {key: value for key, value in found.items() if key not in ("seconds", "peak_gib", "plan")}
        rows.append(f"| {name} | {found['seconds']} | {found['peak_gib']} | {json.dumps(rest)} |")
    return "\n".join([*rows, "", *steps["plan"]["plan"]])


def main(argv: list[str] | None = None) -> None:
    [arguments] = parse_arguments(MissionArguments, description=DESCRIPTION, argv=argv, usage=USAGE)
    arguments.out = str(Path(arguments.out).resolve())
    mission = Mission(arguments)
    with clear_errors():
        if arguments.step == "all":
            print(table(run(mission)))
        else:
            print(json.dumps(getattr(mission, arguments.step)()))
