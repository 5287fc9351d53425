"""What all explorers share: knobs with a unit and a meaning, a view, and the wiring between them.

A knob is a slider whose value is either the slider's own number or the power of two of it (`log2`): sizes and speeds
span several orders of magnitude. Sliders are reached with Tab and moved with the arrow keys.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import ipywidgets as ipw

from specdec_course.plots import Number, Picture

__all__ = ["Explorer", "Knob", "View", "show"]


@dataclass(frozen=True, slots=True)
class View:
    """What an explorer shows at one setting: a few numbers as HTML, and a picture."""

    html: str
    picture: Picture


@dataclass(frozen=True, slots=True)
class Knob:
    """A slider. `unit` follows the number; `meaning` describes it. `log2`: low, high, value are exponents.

    `choices`: names shown in place of the numbers low, low + 1, ...
    """

    name: str
    meaning: str
    low: Number
    high: Number
    value: Number
    step: Number = 1.0
    unit: str = ""
    log2: bool = False
    choices: tuple[str, ...] = ()

    def read(self, position: Number) -> float:
        """The quantity at this position of the slider."""
        return 2.0**position if self.log2 else float(position)

    def starting_at(self, value: Number) -> "Knob":
        """This knob, which starts at the nearest position that its slider can take."""
        steps = round((min(self.high, max(self.low, value)) - self.low) / self.step)
        return replace(self, value=round(float(self.low) + steps * self.step, 9))

    def words(self, position: Number) -> str:
        """The quantity as text, with its unit."""
        value = self.read(position)
        if self.choices:
            return self.choices[round(value - self.low)]
        number = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
        unit = self.unit.removesuffix("s") if number == "1" and "/" not in self.unit else self.unit
        return f"{number} {unit}".rstrip()


@dataclass(frozen=True, slots=True)
class Explorer:
    """The assembled widget: `root` is what a notebook displays, the rest is for tests."""

    root: ipw.VBox
    sliders: tuple[ipw.FloatSlider, ...]
    numbers: ipw.HTML
    picture: ipw.Image
    first: View

    @classmethod
    def build(
        cls, knobs: Sequence[Knob], view: Callable[..., View], *, busy: bool = False, text: str | None = None
    ) -> "Explorer":
        """Wire `knobs` to `view`, which takes their quantities in order. `busy`: redraw once a slider is let go.

        `text`: a field to write or paste into, which starts with it; `view` then takes the text first.
        """
        sliders = tuple(_slider(knob, busy) for knob in knobs)
        labels = [ipw.HTML(layout=ipw.Layout(margin="2px 2px 2px 10px")) for _ in knobs]  # clear of a slider's thumb
        area = ipw.Textarea(value=text or "", rows=4, layout=ipw.Layout(width="62em", max_width="98%"))
        fields = [] if text is None else [area]
        numbers = ipw.HTML()
        # No tooltip on the image: ipywidgets 8.1 then fails to draw any widget that has no description.
        image = ipw.Image(format="png", layout=ipw.Layout(max_width="100%", align_self="flex-start"))

        def redraw(change: object = None) -> View:
            values = [knob.read(slider.value) for knob, slider in zip(knobs, sliders, strict=True)]
            now = view(*(field.value for field in fields), *values)
            for knob, slider, label in zip(knobs, sliders, labels, strict=True):
                label.value = (
                    f"<b>{knob.words(slider.value)}</b> &nbsp; <span style='opacity:.75'>{knob.meaning}</span>"
                )
            numbers.value, image.value = f"<div style='line-height:1.5'>{now.html}</div>", now.picture.png
            return now

        first = redraw()
        for control in (*sliders, *fields):
            control.observe(redraw, "value")
        rows = [ipw.HBox([slider, label]) for slider, label in zip(sliders, labels, strict=True)]
        return cls(ipw.VBox([*rows, *fields, numbers, image]), sliders, numbers, image, first)


def _slider(knob: Knob, busy: bool) -> ipw.FloatSlider:
    return ipw.FloatSlider(
        value=knob.value,
        min=knob.low,
        max=knob.high,
        step=knob.step,
        description=knob.name,
        readout=False,
        continuous_update=not busy,
        style={"description_width": "11em"},
        layout=ipw.Layout(width="26em"),
    )


def show(explorer: Explorer) -> None:
    """Show the widget and a still of its default state below: GitHub, PDF and untrusted notebooks draw no widgets."""
    from IPython.display import HTML, display

    line = "border-top:1px dashed #999;margin-top:1em"
    words = "A still picture of the widget as it opens, for pages without a running kernel: GitHub, print."
    still = HTML(f"<div style='{line}'><small>{words}</small></div>" + explorer.first.html)
    live = explorer.root._repr_mimebundle_() | {"text/plain": "Run this cell to move the sliders."}
    display(live, raw=True)  # the text is what a page shows that draws no widgets, in place of the object's repr
    display(still, explorer.first.picture)
