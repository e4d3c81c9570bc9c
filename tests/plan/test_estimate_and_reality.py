"""The memory that `slam-asr plan` estimates beside the peak of real training steps, in their own process."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_configs import tiny_audio_config, tiny_text_config

REPOSITORY = Path(__file__).parents[2]
TOLERANCE = 0.25  # of the estimate, either way; docs/plan.md has what was measured


def measured(encoder: Path, llm: Path, *flags: str) -> float:
    """The measured peak over the estimated one."""
    command = ["-m", "benchmarks.training_memory", "--encoder", str(encoder), "--llm", str(llm), *flags]
    done = subprocess.run([sys.executable, *command], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    print(result)
    return result["measured"] / result["estimated"]


@pytest.mark.e2e
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is known on Linux alone")
def test_the_estimate_of_a_small_model_is_near_its_peak(tmp_path):
    """Wide enough that a step takes far more than the libraries' own scratch memory."""
    tiny_audio_config(d_model=128, encoder_ffn_dim=512, encoder_layers=4).save_pretrained(
        tmp_path / "whisper"
    )
    tiny_text_config(
        hidden_size=256, intermediate_size=1024, num_hidden_layers=8, vocab_size=2048
    ).save_pretrained(tmp_path / "llm")
    ratio = measured(tmp_path / "whisper", tmp_path / "llm", "--batch", "16", "--seconds", "12")
    assert ratio == pytest.approx(1.0, abs=TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize("flags", [[], ["--gradient_checkpointing"]])
def test_the_estimate_of_a_real_model_is_near_its_peak(real_models, flags):
    ratio = measured(real_models / "whisper-base", real_models / "qwen2.5-0.5b", "--seconds", "8", *flags)
    assert ratio == pytest.approx(1.0, abs=TOLERANCE)
