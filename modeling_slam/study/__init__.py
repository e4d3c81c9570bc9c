"""A study of many runs: the file that spans it, the engine that runs it, and what it means.

from modeling_slam.study import StudyResults, load_study, run_study

run_study(load_study("studies/demo.yaml"), "runs/demo-study")
StudyResults.load("runs/demo-study").runs[["language", "mode", "keep_layers", "wer"]]
"""

from modeling_slam.analysis.results import StudyResults
from modeling_slam.study.engine import run_study
from modeling_slam.study.grid import load_study

__all__ = ["StudyResults", "load_study", "run_study"]
