"""One palette for terminal, plots and widgets: the same thing has the same colour everywhere.

The colours are Okabe and Ito's, which readers of every colour vision can tell apart. Those of tokens (accepted,
rejected, bonus) have a contrast of at least 3 : 1 on black and on white, since a terminal's background is not known.
Colour never stands alone: rejected text is also struck through, a bonus token is also bold or outlined.
Source: Okabe & Ito 2008, Color Universal Design; contrast as in WCAG 2.2, 1.4.11.
"""

from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["PALETTE"]

PALETTE: Mapping[str, str] = MappingProxyType(
    {
        "target": "#0072B2",  # blue: the model whose text is wanted, and its distribution p
        "draft": "#E69F00",  # orange: whatever guesses, and its distribution q
        "accepted": "#009E73",  # bluish green: a guess that stayed
        "rejected": "#D55E00",  # vermilion: a guess that was turned down
        "bonus": "#CC79A7",  # reddish purple: the target's own token of a round, bonus or correction
    }
)
