"""What a study's predictions say: results as DataFrames, and what follows from them.

Here DataFrames come in and DataFrames go out. How they are written down is `report`'s business, what others
have published is `paper`'s.
"""

from modeling_slam.analysis.results import StudyResults

__all__ = ["StudyResults"]
