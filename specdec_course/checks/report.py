"""What a self-check says: a line a case, what was tried and what came out, never the answer.

The same object gives the marks. nbgrader reads the last value of a graded cell: a number is partial credit, an error
is none.
"""

from dataclasses import dataclass, replace
from html import escape

from specdec_ref.palette import PALETTE

__all__ = ["AHEAD", "UNWRITTEN", "Case", "Credit", "Report"]

UNWRITTEN = "not written yet: it still raises NotImplementedError"
AHEAD = "Handing in adds hidden ones."
FIRST = "Write it in the cell above and run that cell, then run this one again."


@dataclass(frozen=True, slots=True)
class Case:
    """`asks`: what must hold. `says`: what was tried and what came out. `weight`: its share of the task's points."""

    asks: str
    passed: bool
    says: str
    weight: float = 1.0

    @property
    def counts(self) -> str:
        """Its weight in words; nothing where it is an ordinary one."""
        return {1.0: "", 0.5: " (counts half)"}.get(self.weight, f" (counts {self.weight:g} times)")


class Credit(float):
    """Points of a graded cell. Its text is the bare number, since nbgrader reads that; a page shows a sentence."""

    points: float = 0.0

    def _repr_html_(self) -> str:
        return f"<b>{float(self):g} of {self.points:g} points</b> by these tests. {AHEAD}"


@dataclass(frozen=True, slots=True)
class Report:
    """The cases of one task, and the misconceptions that would explain those that fail."""

    title: str
    cases: tuple[Case, ...]
    reasons: tuple[str, ...] = ()

    @property
    def passed(self) -> int:
        """How many cases hold."""
        return sum(case.passed for case in self.cases)

    @property
    def ok(self) -> bool:
        """True if all of them hold."""
        return self.passed == len(self.cases)

    def __add__(self, other: "Report") -> "Report":
        """Both reports as one; a reason is given once."""
        reasons = tuple(dict.fromkeys(self.reasons + other.reasons))
        return replace(self, cases=self.cases + other.cases, reasons=reasons)

    def credit(self, points: float | int) -> Credit:
        """The points that these cases earn, by weight. Raises AssertionError with the report if they earn none."""
        earned = sum(case.weight for case in self.cases if case.passed) / sum(case.weight for case in self.cases)
        if not earned:
            raise AssertionError(str(self))
        credit = Credit(points if self.ok else round(points * earned, 2))
        credit.points = points
        return credit

    def __str__(self) -> str:
        if self._unwritten:
            return f"{self._heading()}. {FIRST}"
        lines = [self._heading()]
        lines += [
            f"  {'holds' if case.passed else 'FAILS'}  {case.asks}{case.counts}: {case.says}" for case in self.cases
        ]
        return "\n".join(lines + [f"  A likely cause: {reason}" for reason in self.reasons])

    def _repr_html_(self) -> str:
        if self._unwritten:
            return f"<p><b>{escape(self._heading())}.</b> {FIRST}</p>"
        rows = "".join(
            f"<tr><td style='color:{PALETTE['accepted' if case.passed else 'rejected']};white-space:nowrap;"
            f"vertical-align:top'><b>{'✓ holds' if case.passed else '✗ fails'}</b></td>"
            f"<td style='text-align:left'><b>{escape(case.asks)}{case.counts}:</b> {escape(case.says)}</td></tr>"
            for case in self.cases
        )
        reasons = "".join(f"<p><b>A likely cause:</b> {escape(reason)}</p>" for reason in self.reasons)
        return f"<p><b>{escape(self._heading())}</b></p><table>{rows}</table>{reasons}"

    @property
    def _unwritten(self) -> bool:
        return all(UNWRITTEN in case.says for case in self.cases)

    def _heading(self) -> str:
        if self._unwritten:
            return f"{self.title}: not written yet"
        count = len(self.cases)
        return f"{self.title}: {'all ' if self.ok else f'{self.passed} of '}{count} case{'s' * (count > 1)} hold"
