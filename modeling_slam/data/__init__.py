"""Speech data: sources, text normalisation, selection and its report."""

from modeling_slam.data.arguments import DataArguments
from modeling_slam.data.clips import DataError
from modeling_slam.data.loading import load_for_run, load_speech
from modeling_slam.data.report import DataReport
from modeling_slam.data.text import normalize_text, written_text

__all__ = [
    "DataArguments",
    "DataError",
    "DataReport",
    "load_for_run",
    "load_speech",
    "normalize_text",
    "written_text",
]
