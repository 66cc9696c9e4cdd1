"""How every figure looks: nothing is cut off, covered or too small, whatever the names are."""

import matplotlib
import matplotlib.pyplot as plt
import matplotlib.style
import pytest

from analyses.core import figures


@pytest.mark.parametrize(
    "name", ["a", "reverse_kl:replay=0.2,learner=single_mode", "a name of many words " * 9]
)
@pytest.mark.parametrize("number", [1, 3, 20])
def test_a_legend_below_covers_nothing_and_is_not_cut_off(tmp_path, name, number):
    with figures.style():
        figure, axes = plt.subplots(figsize=(5.0, 4.0))
        for place in range(number):
            axes.plot([0.0, 1.0], [0.0, place], label=f"{name} {place}")
        figures.legend_below(figure, *axes.get_legend_handles_labels())
        figures.heading(figure, "Forgetting against learning. " * 5)
        figures.save(figure, tmp_path, "named")  # refuses what is cut off
        (legend,) = figure.legends
        assert len(legend.get_texts()) == number
        assert max(text.get_window_extent().y1 for text in legend.get_texts()) <= axes.get_tightbbox().y0
        assert axes.get_window_extent().height > 0.4 * 4.0 * figure.dpi


def test_short_names_stand_side_by_side():
    with figures.style():
        figure, axes = plt.subplots(figsize=(8.0, 4.0))
        for place in range(4):
            axes.plot([0.0], [0.0], label=f"run {place}")
        figures.legend_below(figure, *axes.get_legend_handles_labels())
        tops = {round(text.get_window_extent().y0) for text in figure.legends[0].get_texts()}
        plt.close(figure)
    assert len(tops) == 1
    assert figure.get_figheight() == 4.0


@pytest.mark.parametrize("change", [{"fontsize": 7}, {"x": 1.5}])
def test_small_text_and_text_beyond_the_edge_are_seen(tmp_path, change):
    with figures.style():
        figure, axes = plt.subplots()
        axes.text(**({"x": 0.5, "y": 0.5, "s": "small or far", "transform": axes.transAxes} | change))
        with pytest.raises(AssertionError, match="figure"):
            figures.save(figure, tmp_path, "figure")
        plt.close(figure)


def test_drawing_leaves_the_callers_settings_and_what_shows_figures_alone():
    before = dict(matplotlib.rcParams)
    with figures.styled("ggplot"), figures.style():
        assert matplotlib.rcParams["axes.facecolor"] == "#E5E5E5"
        assert matplotlib.rcParams["pdf.fonttype"] == 42
    assert dict(matplotlib.rcParams) == before


def test_a_style_on_top_brings_its_own_colours():
    with figures.styled("grayscale"):
        looks = list(figures.line_style([f"run {place}" for place in range(12)]).values())
    assert {look["color"] for look in looks} == set(
        matplotlib.style.library["grayscale"]["axes.prop_cycle"].by_key()["color"]
    )
    house = figures.line_style([f"run {place}" for place in range(12)]).values()
    assert [look["color"] for look in house] == [
        matplotlib.color_sequences["petroff10"][place % 10] for place in range(12)
    ]
    for drawn in (looks, house):
        assert len({(look["color"], str(look["linestyle"])) for look in drawn}) == len(drawn)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1e-4, 1e3], ["10⁻⁴", "10⁻¹", "10²"]),
        ([2.1e-3, 5.5e-3], ["3×10⁻³", "4×10⁻³"]),
        ([-1e3, 1e3], ["\N{MINUS SIGN}10³", "0", "10³"]),
    ],
)
def test_numbers_of_a_log_axis_are_plain_characters(values, expected):
    with figures.style():
        figure, axes = plt.subplots()
        axes.plot(values, values)
        figures.log_scale(axes, "xy", linear_below=1.0 if min(values) < 0.0 else None)
        figure.draw_without_rendering()
        found = [axis.get_ticklabels(which="both") for axis in (axes.xaxis, axes.yaxis)]
        plt.close(figure)
    for labels in found:
        texts = [label.get_text() for label in labels]
        assert set(expected) <= set(texts), texts
        assert not any("$" in text for text in texts)
