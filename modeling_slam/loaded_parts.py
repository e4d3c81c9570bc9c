"""`pipeline("automatic-speech-recognition", model=model, processor=processor)`, of parts that are loaded.

Transformers finds our pipeline in a checkpoint's config when it is given the checkpoint's name. With a loaded
model it looks at no config and takes its own pipeline, which insists on a tokenizer and a feature extractor
and decodes every model that it does not know as CTC. So importing `modeling_slam` puts a choice in its place:
our pipeline for our models, transformers' own for all others.
"""

from typing import Any

from transformers import AutomaticSpeechRecognitionPipeline, Pipeline
from transformers.pipelines import PIPELINE_REGISTRY

from .model.configuration_slam import SlamAsrConfig
from .model.pipeline_slam import SlamAsrPipeline

TASK = "automatic-speech-recognition"


class SpeechRecognition:
    """What `pipeline` calls with the model and the parts that it was given or could load."""

    _load_tokenizer = _load_feature_extractor = None  # our models need neither, all others both
    _load_processor = _load_image_processor = _load_video_processor = False

    def __new__(cls, model: Any, **arguments: Any) -> Pipeline:
        """
        Raises:
            ValueError: a part is missing.
        """
        if model.config.model_type == SlamAsrConfig.model_type:
            return SlamAsrPipeline(model, **arguments)
        missing = {"tokenizer", "feature_extractor"} - arguments.keys()
        if missing and "processor" not in arguments:
            name = model.name_or_path or type(model).__name__
            raise ValueError(
                f"The {' and the '.join(sorted(missing))} of {name} could not be loaded. `from_pretrained` "
                "of AutoTokenizer or AutoFeatureExtractor says why: pass what it gives."
            )
        return AutomaticSpeechRecognitionPipeline(model, **arguments)


def register() -> None:
    usual = PIPELINE_REGISTRY.supported_tasks[TASK]
    PIPELINE_REGISTRY.supported_tasks[TASK] = {**usual, "impl": SpeechRecognition}
