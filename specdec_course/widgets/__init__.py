"""Explorers for the notebooks: move a slider, watch numbers and a picture change. The only place with ipywidgets.

Each module holds pure functions (state in, `View` out) and one thin function that puts sliders in front of them. Only
HTML and Image are used, never `interact` or `Output`: so the state is testable, storable, and compared by nbval.
"""

from specdec_course.widgets.base import Explorer, Knob, View, show
from specdec_course.widgets.blocks import block_explorer, block_view
from specdec_course.widgets.choice import choice_explorer, choice_view
from specdec_course.widgets.copying import copy_explorer, copy_view
from specdec_course.widgets.heads import head_explorer, head_view
from specdec_course.widgets.overlap import overlap_explorer, overlap_view
from specdec_course.widgets.painted import LEGEND, live, painted
from specdec_course.widgets.progress import progress
from specdec_course.widgets.rates import fitted, rate_explorer, rate_view
from specdec_course.widgets.roofline import roofline_explorer, roofline_view
from specdec_course.widgets.stepper import step_view, trace_stepper
from specdec_course.widgets.traffic import traffic_explorer, traffic_view
from specdec_course.widgets.tree import tree_explorer, tree_view

__all__ = [
    "LEGEND",
    "Explorer",
    "Knob",
    "View",
    "block_explorer",
    "block_view",
    "choice_explorer",
    "choice_view",
    "copy_explorer",
    "copy_view",
    "fitted",
    "head_explorer",
    "head_view",
    "live",
    "overlap_explorer",
    "overlap_view",
    "painted",
    "progress",
    "rate_explorer",
    "rate_view",
    "roofline_explorer",
    "roofline_view",
    "show",
    "step_view",
    "trace_stepper",
    "traffic_explorer",
    "traffic_view",
    "tree_explorer",
    "tree_view",
]
