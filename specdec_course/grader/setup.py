"""nbgrader's settings for a course folder: `specdec grade` and `nbgrader_config.py`, for JupyterLab, use the same."""

from pathlib import Path

from nbconvert.preprocessors import ClearMetadataPreprocessor
from nbgrader.converters import Autograde, GenerateAssignment
from traitlets.config import Config

from specdec_course.grader.confine import Allowance
from specdec_course.grader.judge import Judged

__all__ = ["ABOUT", "configure"]

ABOUT = "specdec"  # key of a notebook's metadata under which a hand-in carries what was odd about it
STUB = 'raise NotImplementedError("your code here")'


def configure(config: Config, root: Path, allowance: Allowance) -> None:
    """Where everything is, what a release leaves out, and that hand-ins run in a box."""
    book = root / "gradebook"
    where = config.CourseDirectory
    where.course_id, where.root, where.source_directory = "specdec", str(root), "solutions"
    where.release_directory, where.submitted_directory = str(root / "exercises"), str(book / "submitted")
    where.autograded_directory, where.feedback_directory = str(book / "autograded"), str(book / "feedback")
    where.db_url = f"sqlite:///{book / 'gradebook.db'}"
    config.ClearSolutions.code_stub = {"python": STUB}
    config.ClearSolutions.text_stub = "*Write your answer here.*"
    config.GenerateAssignment.preprocessors = [*GenerateAssignment().preprocessors, ClearMetadataPreprocessor]
    config.ClearMetadataPreprocessor.enabled = True
    config.ClearMetadataPreprocessor.clear_cell_metadata = False
    config.ClearMetadataPreprocessor.preserve_nb_metadata_mask = {"kernelspec", "language_info", ABOUT}
    steps = Autograde().autograde_preprocessors
    config.Autograde.autograde_preprocessors = [Judged if step.__name__ == "Execute" else step for step in steps]
    config.Judged.allowance = allowance
