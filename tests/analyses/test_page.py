"""The page of a report: interactive figures hold what the printed ones do, and nothing is loaded or run."""

import base64
import html
import io
import json
import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import LogNorm, PowerNorm, to_rgb

import analyses
from analyses.core import figures
from analyses.page import interactive
from analyses.page.cells import table_of
from analyses.page.interactive import series_of
from analyses.page.page import Run, View, page_of, view_of
from analyses.page.panel import text_of
from analyses.registry import COMMANDS


@pytest.fixture
def axes():
    with figures.style():
        figure, axes = plt.subplots()
        yield axes
        plt.close(figure)


def of_figure(figure):
    figure.draw_without_rendering()
    return interactive.of_figure(figure)


def traces_of(axes, **wanted):
    found = of_figure(axes.figure)["data"]
    return [trace for trace in found if all(trace.get(name) == value for name, value in wanted.items())]


def test_lines_have_their_numbers_names_and_the_intervals_of_their_bands(axes):
    step, mean = np.array([0.0, 10.0, 20.0]), np.array([0.5, 0.25, 0.125])
    axes.fill_between(step, mean - 0.1, mean + 0.1, color="C0", alpha=0.3)
    axes.plot(step, mean, color="C0", label="sft")
    axes.plot(step, mean**2, color="C0", linestyle=":")
    axes.plot(step, 0.9 * mean, color="C1", label="<b>&")
    found = of_figure(axes.figure)
    (line,) = (trace for trace in found["data"] if trace.get("name") == "sft")
    assert line["x"] == step.tolist()
    assert line["y"] == mean.tolist()
    assert line["customdata"] == ["0: 0.5 [0.4, 0.6]", "10: 0.25 [0.15, 0.35]", "20: 0.125 [0.025, 0.225]"]
    # A band and a dotted line of its colour are switched off with it; each name is once in the legend.
    assert sum(trace.get("legendgroup") == "sft" for trace in found["data"]) == 3
    assert sum(trace["showlegend"] for trace in found["data"]) == 2
    assert series_of(found) == ["sft", "<b>&"]
    # A name is no markup.
    assert {trace["name"] for trace in found["data"] if "name" in trace} == {"sft", "&lt;b&gt;&amp;"}
    # Without one of its colour a line has no interval.
    (other,) = (trace for trace in found["data"] if trace.get("legendgroup") == "<b>&")
    assert other["customdata"][0] == "0: 0.45"


def test_strokes_are_the_intervals_of_points_of_their_colour(axes):
    axes.vlines([1.0, 2.0], [0.0, 0.5], [1.0, 1.5], color="C2", alpha=0.6)
    axes.plot([1.0, 2.0], [0.5, 1.0], "o", color="C2", label="runs")
    (points,) = traces_of(axes, name="runs")
    assert points["mode"] == "markers"
    assert points["customdata"] == ["1: 0.5 [0, 1]", "2: 1 [0.5, 1.5]"]
    (strokes,) = (trace for trace in traces_of(axes, legendgroup="runs") if "name" not in trace)
    assert strokes["x"] == [1.0, 1.0, None, 2.0, 2.0, None]


def test_points_with_error_bars_have_the_name_of_both(axes):
    axes.errorbar(1.0, 2.0, xerr=0.5, yerr=[[0.5], [1.0]], fmt="s", color="C3", label="oapl", capsize=3)
    named = traces_of(axes, name="oapl")
    assert [(trace["x"], trace["y"]) for trace in named] == [([1.0], [2.0])]
    assert all(trace["legendgroup"] == "oapl" for trace in of_figure(axes.figure)["data"])


def test_missing_values_are_gaps_and_all_is_json(axes):
    axes.plot([0.0, 1.0, 2.0], [np.nan, 1.0, np.inf])
    found = of_figure(axes.figure)
    assert found["data"][0]["y"] == [None, 1.0, None]
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize(("scale", "expected"), [("linear", [1.0, 100.0]), ("log", [0.0, 2.0])])
def test_ranges_are_those_of_the_scale(axes, scale, expected):
    axes.plot([1.0, 100.0], [1.0, 2.0])
    axes.set(xscale=scale, xlim=(1.0, 100.0), xlabel="steps [1]", ylim=(2.0, 1.0))
    layout = of_figure(axes.figure)["layout"]
    assert layout["xaxis"]["type"] == scale
    np.testing.assert_allclose(layout["xaxis"]["range"], expected)
    assert layout["xaxis"]["title"]["text"] == "steps [1]"
    assert layout["yaxis"]["range"] == [2.0, 1.0]  # turned round


def test_a_scale_that_plotly_lacks_is_bent_and_has_its_own_ticks(axes):
    values = np.array([0.0, 0.1, 1.0, 10.0])
    axes.plot(values, values, label="curve")
    axes.axvline(10.0, color="0.3")
    figures.log_scale(axes, "x", linear_below=0.1)
    axes.set_xticks([0.0, 0.1, 1.0, 10.0])
    found = of_figure(axes.figure)
    places = axes.xaxis.get_transform().transform(values)
    np.testing.assert_allclose(found["data"][0]["x"], places, rtol=1e-5)
    np.testing.assert_allclose(found["layout"]["xaxis"]["tickvals"], places)
    assert found["layout"]["xaxis"]["ticktext"] == ["0", "10⁻¹", "10⁰", "10¹"]
    np.testing.assert_allclose(found["layout"]["shapes"][0]["x0"], places[-1], rtol=1e-5)
    assert found["data"][0]["customdata"][3].startswith("10: 10")


def test_lines_and_areas_from_edge_to_edge_are_shapes(axes):
    axes.plot([0.0, 4.0], [0.0, 1.0])
    axes.axhline(0.25, color="k", linestyle="--")
    axes.axvspan(1.0, 2.0, color="0.8")
    line, area = of_figure(axes.figure)["layout"]["shapes"]
    assert (line["xref"], line["x0"], line["x1"], line["y0"], line["y1"]) == (
        "x domain",
        0.0,
        1.0,
        0.25,
        0.25,
    )
    assert (area["yref"], area["x0"], area["x1"], area["y0"], area["y1"]) == ("y domain", 1.0, 2.0, 0.0, 1.0)
    assert len(traces_of(axes)) == 1


def test_bars_are_where_they_stand(axes):
    axes.bar([0, 1], [3.0, 5.0], color="C1")
    axes.set_xticks([0, 1], ["a", "b"])
    found = of_figure(axes.figure)["layout"]
    assert [(shape["x0"], shape["x1"], shape["y0"], shape["y1"]) for shape in found["shapes"]] == [
        (-0.4, 0.4, 0.0, 3.0),
        (0.6, 1.4, 0.0, 5.0),
    ]
    assert found["xaxis"]["ticktext"] == ["a", "b"]


@pytest.mark.parametrize("norm", [None, LogNorm(0.01, 10.0), PowerNorm(0.5, 0.0, 10.0)])
def test_maps_have_their_values_and_colours(axes, norm):
    values = np.array([[0.01, 0.1, 1.0], [np.nan, 1.0, 10.0]])
    mesh = axes.pcolormesh([0.0, 1.0, 2.0, 3.0], [0.0, 1.0, 2.0], values, norm=norm, cmap="viridis")
    axes.figure.colorbar(mesh, label="drift")
    (found,) = (trace for trace in traces_of(axes) if trace["type"] == "heatmap")
    is_log = isinstance(norm, LogNorm)
    expected = np.log10(values) if is_log else values
    np.testing.assert_allclose(np.array(found["z"], float), expected, rtol=1e-5)
    assert found["customdata"][1] == ["nan", "1", "10"]
    if norm is not None:
        low = 0.0 if isinstance(norm, PowerNorm) else -2.0
        assert (found["zmin"], found["zmax"]) == (low, 1.0 if is_log else 10.0)
    # Colours are those of the drawing at every value.
    places, colours = zip(*found["colorscale"], strict=True)
    shown = np.array(places) * (found["zmax"] - found["zmin"]) + found["zmin"]
    drawn = mesh.cmap(mesh.norm(10.0**shown if is_log else shown))
    np.testing.assert_allclose([to_rgb(colour) for colour in colours], drawn[:, :3], atol=0.01)
    # Its bar stands beside the panel.
    assert found["colorbar"]["x"] > 1.0
    assert (found["colorbar"]["y"], found["colorbar"]["len"]) == pytest.approx((0.5, 1.0))
    assert found["colorbar"]["title"]["text"] == "drift"
    assert found["x"] == [0.0, 1.0, 2.0, 3.0]


def test_points_have_the_colours_of_the_map_below_and_lines_lie_above_it(axes):
    look = {"norm": LogNorm(0.01, 10.0, clip=True), "cmap": "cividis"}
    axes.pcolormesh([0.0, 1.0, 2.0], [0.0, 1.0], np.array([[0.0, 1.0]]), **look)
    axes.scatter([0.5, 1.5], [0.5, 0.5], c=[0.0, 1.0], edgecolors="white", linewidths=1.5, **look)
    axes.axvline(1.0, color="k")
    (below,) = traces_of(axes, type="heatmap")
    (points,) = traces_of(axes, mode="markers")
    assert below["z"] == [[-2.0, 0.0]]
    assert points["marker"]["color"] == [-2.0, 0.0]
    assert (points["marker"]["cmin"], points["marker"]["cmax"]) == (below["zmin"], below["zmax"])
    assert points["marker"]["line"] == {"color": "rgba(255,255,255,1)", "width": 1.5}
    (line,) = of_figure(axes.figure)["layout"]["shapes"]
    assert line["layer"] == "above"


def test_names_in_a_legend_made_by_hand_are_those_of_its_colours(axes):
    (line,) = axes.plot([0.0, 1.0], [0.0, 1.0], color="C4")
    axes.figure.legend([line], ["δ = 4"])
    assert series_of(of_figure(axes.figure)) == ["δ = 4"]


def test_panels_stand_as_they_do_on_paper_and_share_their_labels():
    with figures.style():
        figure, panels = plt.subplots(2, 2, sharex=True, sharey=True)
        for place, one in enumerate(panels.flat):
            one.plot([0.0, 1.0], [0.0, place])
        figure.supxlabel("training step")
        figure.supylabel("old weight")
        found = of_figure(figure)
        plt.close(figure)
    layout = found["layout"]
    assert [trace["xaxis"] for trace in found["data"]] == ["x", "x2", "x3", "x4"]
    assert layout["xaxis"]["domain"][1] < layout["xaxis2"]["domain"][0]
    assert layout["yaxis3"]["domain"][1] < layout["yaxis"]["domain"][0]
    assert [layout[f"xaxis{s}"]["title"]["text"] for s in ("", "2", "3", "4")] == [
        "",
        "",
        *["training step"] * 2,
    ]
    assert [layout[f"yaxis{s}"]["showticklabels"] for s in ("", "2")] == [True, False]
    assert "old weight" in [one["text"] for one in layout["annotations"]]


def test_pictures_stay_pictures():
    figure, axes = plt.subplots()
    axes.imshow(np.zeros((3, 3)))
    axes.set_axis_off()
    assert of_figure(figure) is None
    plt.close(figure)


def test_names_are_no_markup():
    assert text_of("a <b> & c\nd") == "a &lt;b&gt; &amp; c<br>d"


# Tables and pages


def test_a_table_joins_a_value_with_its_interval_and_sorts_by_the_value():
    frame = pd.DataFrame(
        {
            "objective": ["sft", "rl"],
            "retention": [0.123456, np.nan],
            "retention_lower": [0.1, np.nan],
            "retention_upper": [0.2, np.nan],
            "displacement": [1e-5, 2.0],
            "displacement_error": [1e-6, np.nan],
            "num": [3, 4],
            "cheapest": [True, False],
        }
    )
    table = table_of(frame)
    assert [column.hint for column in table.columns] == [
        "objective",
        "retention, retention_lower, retention_upper",
        "displacement, displacement_error",
        "num",
        "cheapest",
    ]
    first, second = table.rows
    assert [cell.text for cell in first] == ["sft", "0.123 [0.1, 0.2]", "1.0e-05 ± 1.0e-06", "3", "yes"]
    assert [cell.text for cell in second] == ["rl", "n/a", "2", "4", "no"]
    assert float(first[1].value) == 0.123456
    assert second[1].value == ""
    pd.testing.assert_frame_equal(pd.read_csv(io.BytesIO(base64.b64decode(table.csv))), frame)


def run_named(name, figure):
    views = {"old_weight": view_of(figure)}
    table = table_of(pd.DataFrame({"objective": [name], "retention": [0.5]}))
    words = {"old_weight": f"what {name} shows"}
    return Run(
        name,
        "Which?",
        [f"{name} keeps 0.5."],
        [f"{name} is weak."],
        views,
        words,
        table,
        "massdrift x",
        "seed = 0",
        "",
    )


@pytest.fixture
def drawn():
    with figures.style():
        figure, axes = plt.subplots()
        axes.plot([0.0, 5.0], [1.0, 0.5], label="sft</script><script>alert(1)</script>")
        axes.set_xlabel("training step, over all stages")
        yield figure
        plt.close(figure)


def test_a_page_holds_everything_and_a_name_is_no_program(drawn):
    name = 'a<script>alert("x")</script>'
    page = page_of([run_named(name, drawn)], "title & more")
    assert html.escape(name, quote=False) in page.replace("&#34;", '"')
    assert "alert(1)</script>" not in page
    assert 'alert("x")' not in page
    # Nothing is loaded: what names an address is a namespace of SVG, or plotly's own text, which is packed.
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", page)
    assert "title &amp; more" in page
    for words in ("keeps 0.5.", "is weak.", "what a", "massdrift x", "seed = 0", "Download as CSV"):
        assert words in page
    views = json.loads(re.search(r'id="views">(.*?)</script>', page, flags=re.DOTALL)[1])
    assert list(views) == ["0-old_weight"]
    assert json.loads(re.search(r'id="step-values">(.*?)</script>', page)[1]) == [0.0, 5.0]
    assert len(page) < 5e6


def test_runs_stand_side_by_side_and_figures_in_the_order_of_their_meanings(drawn):
    runs = [run_named("a", drawn), run_named("b", drawn)]
    runs[1].views["extra"] = View("", None)
    page = page_of(runs, "two")
    assert page.count('<article class="figure"') == 2
    assert page.index("Old weight</h3>") < page.index("Extra</h3>")
    assert 'data-view="0-old_weight"' in page
    assert 'data-view="1-old_weight"' in page


@pytest.mark.parametrize("command", [one for one in COMMANDS if one.draws], ids=lambda one: one.word)
def test_every_command_that_draws_has_an_answer_and_tells_what_its_figures_show(command):
    analysis = getattr(analyses, command.module)
    assert all(map(callable, (analysis.answer, analysis.summary, analysis.plot, analysis.table)))
    assert analysis.MEANINGS
    for words in analysis.MEANINGS.values():
        assert words.endswith((".", "?"))


def test_text_and_frames_on_a_map_can_be_read_there(axes):
    axes.pcolormesh([0.0, 1.0, 2.0], [0.0, 1.0], [[0.0, 1.0]])
    axes.text(0.5, 0.5, "dark", color="white", fontsize=8)
    axes.add_patch(plt.Rectangle((1.0, 0.0), 1.0, 1.0, fill=False, edgecolor="crimson", linewidth=2.0))
    found = of_figure(axes.figure)["layout"]
    (word,) = (one for one in found["annotations"] if one["text"] == "dark")
    assert word["font"]["color"] == "rgba(255,255,255,1)"
    assert word["font"]["size"] == pytest.approx(9.6)
    (frame,) = found["shapes"]
    assert (frame["fillcolor"], frame["layer"], frame["line"]["width"]) == ("rgba(0,0,0,0)", "above", 2.0)
    # Elsewhere text has the colour of the page.
    axes.collections[0].remove()
    (word,) = (one for one in of_figure(axes.figure)["layout"]["annotations"] if one["text"] == "dark")
    assert "color" not in word["font"]
