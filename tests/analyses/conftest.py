"""What tests of analyses share: every figure that they write can be read on paper."""

import re

import pytest
from matplotlib.text import Text

from analyses.core import figures

# At the size at which a figure is saved [pt].
LEAST_SIZE = 8.0

# Of matplotlib's log axis, or one that somebody wrote; a name with dollars may be anything else.
_FORMULA = re.compile(r"mathdefault|\$[^$\\]+\$")


@pytest.fixture(autouse=True)
def readable(monkeypatch):
    """Refuse a figure with smaller text than can be read, or with something cut off."""
    save = figures.save

    def checked(figure, folder, name):
        with figures.saving():
            for _ in range(2):  # as when it is saved: the layout of the second has the labels of the first
                figure.draw_without_rendering()
            box = figure.get_tightbbox()
        small = {
            text.get_text(): text.get_fontsize()
            for text in figure.findobj(Text)
            if text.get_visible() and text.get_text().strip() and text.get_fontsize() < LEAST_SIZE
        }
        assert not small, (name, small)
        # No text of the figures is a formula, which would be shown as it is written.
        raw = [t.get_text() for t in figure.findobj(Text) if _FORMULA.search(t.get_text())]
        assert not raw, (name, raw)
        # Nothing is cut off: box and sizes are in inches.
        over = [-box.x0, -box.y0, box.x1 - figure.get_figwidth(), box.y1 - figure.get_figheight()]
        assert max(over) < 0.05, (name, over)
        save(figure, folder, name)

    monkeypatch.setattr(figures, "save", checked)
