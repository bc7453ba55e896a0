"""One picture of all speed-ups, for the page of results. The table beside it has the same numbers."""

from __future__ import annotations

import io
from collections.abc import Sequence

from recipe_runner.collection import Shown, labels
from recipe_runner.results import metric_label, metrics_ending

TITLE = "Speed-ups of all recipes, on every machine on record"


def speedups_svg(all_shown: Sequence[Shown]) -> bytes:
    """Horizontal bars on a logarithmic scale, a colour for each machine; they start at 1, "no difference"."""
    import matplotlib
    from matplotlib.figure import Figure

    label_of = labels([record for shown in all_shown for record in shown.passed])
    rows = list(metrics_ending(all_shown, "speedup_x"))
    bar = 0.8 / max(1, len(label_of))
    # Without these, each build would write other bytes, and Sphinx would read every page again.
    with matplotlib.rc_context({"svg.hashsalt": "recipe-runner", "font.size": 9}):
        figure = Figure(figsize=(7.5, 1.2 + len(rows) * max(0.36, 0.2 * len(label_of))), layout="constrained")
        axes = figure.add_subplot()
        for number, (machine, label) in enumerate(label_of.items()):
            values = {n: by_machine[machine] for n, (_, _, by_machine) in enumerate(rows) if machine in by_machine}
            places = [n + number * bar for n in values]
            # From 1, so that a slow-down points to the other side.
            bars = axes.barh(places, [value - 1 for value in values.values()], bar, left=1, label=label)
            axes.bar_label(bars, [f"{value:.2f}" for value in values.values()], padding=3)
        axes.set_yticks(
            [n + 0.4 - bar / 2 for n in range(len(rows))],
            [f"{shown.recipe.title}:\n{metric_label(metric)}" for shown, metric, _ in rows],
        )
        axes.invert_yaxis()
        axes.axvline(1, color="black", linewidth=1)
        axes.set_xscale("log")
        axes.margins(x=0.15)
        axes.set_xticks([0.5, 1, 2, 5, 10], ["0.5", "1", "2", "5", "10"])
        axes.set_xlabel("times faster (right of the line) or slower (left of it)")
        axes.set_title(TITLE)
        if axes.get_legend_handles_labels()[0]:  # On a new site there is nothing to explain.
            figure.legend(loc="outside lower center", ncols=2)
        text = io.BytesIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Title": TITLE})
    return text.getvalue()
