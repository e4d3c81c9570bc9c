"""What is analysed and reported here is a made-up study."""

from study_fixtures import study, study_directory

__all__ = ["study", "study_directory"]
