"""slam-asr: speech recognition with a pruned Whisper encoder, a projector, and a causal LM with LoRA."""

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMultimodalLM,
    AutoModelForSpeechSeq2Seq,
    AutoProcessor,
)

from . import loaded_parts
from .model.configuration_slam import SlamAsrConfig
from .model.modeling_slam import SlamAsrForConditionalGeneration
from .model.pipeline_slam import SlamAsrPipeline
from .model.processing_slam import SlamAsrProcessor

__version__ = "0.1.0"
__all__ = ["SlamAsrConfig", "SlamAsrForConditionalGeneration", "SlamAsrPipeline", "SlamAsrProcessor"]

AutoConfig.register("slam_asr", SlamAsrConfig, exist_ok=True)
for auto_class in (AutoModel, AutoModelForSpeechSeq2Seq, AutoModelForMultimodalLM):
    auto_class.register(SlamAsrConfig, SlamAsrForConditionalGeneration, exist_ok=True)
AutoProcessor.register(SlamAsrConfig, SlamAsrProcessor, exist_ok=True)
loaded_parts.register()

# Checkpoints carry the code that loads them (`trust_remote_code=True`) without this package.
SlamAsrConfig.register_for_auto_class()
SlamAsrForConditionalGeneration.register_for_auto_class()
SlamAsrProcessor.register_for_auto_class()
