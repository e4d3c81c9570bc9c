"""A study of many runs: the file that spans it, and the engine that runs it.

from modeling_slam.study import load_study, run_study

study = load_study("studies/demo.yaml")
run_study(study, "runs/demo-study")
"""

from modeling_slam.study.engine import run_study
from modeling_slam.study.grid import load_study

__all__ = ["load_study", "run_study"]
