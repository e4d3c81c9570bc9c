"""`transformers serve` for our models: the same program, in which our architecture has a name.

    python -m modeling_slam.serving.transformers_serve runs/nl-medium --port 8000

Transformers loads what it serves by classes of its own: a model whose type is in its table of multimodal
models by `AutoModelForMultimodalLM`, any other by the name of its architecture in `transformers`, also with
`--trust-remote-code`. So ours are put into that table. The processor needs nothing more: its call takes
`sampling_rate` and `return_tensors`. docs/serve.md says what that server leaves out.
"""

import sys

from transformers.cli.transformers import app as transformers_program
from transformers.models.auto.modeling_auto import MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES

from modeling_slam import SlamAsrConfig, SlamAsrForConditionalGeneration


def register() -> None:
    """Let `transformers serve` load our models."""
    MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES[SlamAsrConfig.model_type] = SlamAsrForConditionalGeneration.__name__


def main() -> None:
    register()
    transformers_program(["serve", *sys.argv[1:]], prog_name="transformers")


if __name__ == "__main__":
    main()
