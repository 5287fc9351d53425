"""For nbgrader's own pages in JupyterLab (Nbgrader > Formgrader), and its commands: the settings of `specdec grade`."""

from pathlib import Path

from specdec_course.grader.confine import Allowance
from specdec_course.grader.formgrader import harden
from specdec_course.grader.setup import configure

root = Path(__file__).parent.resolve()
harden(get_config())  # noqa: F821  (nbgrader defines it)
configure(get_config(), root, Allowance())  # noqa: F821  (nbgrader defines it)
