"""A study of many runs, and what it means."""

from modeling_slam.study.results import StudyResults

__all__ = ["StudyResults"]
