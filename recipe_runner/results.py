"""What the runs measured, as tables: a slice at the end of each page, a page of all, and one JSON and one CSV file."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from datetime import date, datetime

from recipe_runner.claims import claims_rst, refuted_rst
from recipe_runner.collection import Shown, labels, split_unit
from recipe_runner.published import Figure
from recipe_runner.record import Record
from recipe_runner.render import plain

_UNIT_TEXT = {"_s": "s", "_ms": "ms", "_us": "µs", "_x": "×", "_count": "", "_bytes": "bytes"}
_IQR = "_iqr"
_SPREAD = "A time with an IQR is a median; the IQR is its interquartile range, in full width.\n"
#: Words of metrics that have another spelling in prose.
_SPELLING = {"speedup": "speed-up", "breakeven": "break-even"}
#: The overview picture, beside the page of results.
PLOT = "speedups.svg"
#: What the front page includes.
HEADLINES = "headlines.txt"


def slice_rst(shown: Shown, figures: Sequence[Figure]) -> str:
    """What stands at the end of a recipe's page: its metrics and claims on each machine, and published figures."""
    records, figures = shown.passed, [figure for figure in figures if figure.recipe == shown.recipe.name]
    if not records:
        return ""
    parts = [_heading("Results of this page", "-")]
    if any(record.run.metrics for record in records):
        if any(split_unit(metric)[0].endswith(_IQR) for record in records for metric in record.run.metrics):
            parts.append(_SPREAD)
        parts.append(metrics_rst(shown, figures))
    if claims := claims_rst(records):
        parts.append(f"**Claims of this page**\n\n{claims}")
    parts.append("All pages together: :doc:`/results`.\n")
    return "\n".join(parts)


def metrics_rst(shown: Shown, figures: Sequence[Figure] = ()) -> str:
    """One table: a row for each metric, with the figures published for it, and a column for each machine."""
    records = shown.passed
    rows = [["Metric", *map(plain, labels(records).values())]]
    for metric in metric_names(shown):
        label = metric_label(metric) + _explanation(shown, metric)
        label += "".join(_below("published", _reference_text(figure)) for figure in figures if figure.metric == metric)
        rows.append([label, *(_value_text(record, metric) for record in records)])
    return _table(rows)


def metric_names(shown: Shown) -> list[str]:
    """All metrics of a recipe's runs, without the spreads, which stand beside their metric.

    They come as its front matter names them, then the others.
    """
    measured = {name: None for record in shown.passed for name in record.run.metrics}
    first = [name for name in shown.recipe.front_matter.metrics if name in measured]
    return [name for name in dict.fromkeys([*first, *measured]) if not split_unit(name)[0].endswith(_IQR)]


def results_page_rst(all_shown: Sequence[Shown], figures: Sequence[Figure], today: date) -> str:
    """The page of all results: speed-ups first, then a table for each recipe, the runs and the downloads."""
    parts = [
        ":orphan:\n",  # A site may leave it out of its menus.
        _heading("Results", "="),
        "What the recipes measured, on every machine on record. A time with an IQR is a median; the IQR is its "
        "interquartile range, in full width. Counts, ratios and single measurements have none. *Published* are figures "
        "of others, with their source. Their models, their machines and sometimes what was timed differ: they are "
        "references, and not to be compared with the times of this site.\n",
        ":download:`All results as JSON <results.json>` · :download:`as CSV <results.csv>`\n",
        _heading("Speed-ups", "-"),
        "Time of the baseline divided by the time of the variant: above 1 the variant is faster, below 1 slower. The "
        "baseline is eager mode; for starts it is full compilation with an empty cache folder. Machines differ in "
        "size, and so do the models that the recipes use there: compare along a row with care.\n",
        _table(_rows_of(all_shown, "speedup_x")),
        f".. image:: {PLOT}\n   :alt: Speed-ups of all recipes, on every machine on record\n"
        "   :class: recipe-figure recipe-wide\n",
        _heading("Calls until compilation is repaid", "-"),
        "The number of calls after which the time saved exceeds the time of compilation. A machine without a number "
        "was not faster.\n",
        _table(_rows_of(all_shown, "breakeven_calls_count")),
        _heading("What did not hold", "-"),
        "Claims that a run on a machine refuted. All claims stand below, recipe by recipe.\n",
        refuted_rst(all_shown),
        _heading("Recipe by recipe", "-"),
    ]
    for shown in all_shown:
        if shown.passed:
            parts += [_heading(plain(shown.recipe.title), "~"), f":doc:`To the page <{shown.recipe.page}>`\n"]
            mine = [figure for figure in figures if figure.recipe == shown.recipe.name]
            parts += [metrics_rst(shown, mine), claims_rst(shown.passed)]
    parts += [_heading("Runs", "-"), _table(_run_rows(all_shown, today))]
    return "\n".join(parts)


def headlines_rst(all_shown: Sequence[Shown]) -> str:
    """The speed-ups for the front page, without those of single batch sizes, and whether a GPU made any run."""
    runs = [record.run for shown in all_shown for record in (*shown.records, *shown.older)]
    where = "" if any(run.machine.accelerator for run in runs) else "No page has run on a GPU yet."
    return f"{where}\n\n{_table(_rows_of(all_shown, 'speedup_x', but='batch_'))}"


def metrics_ending(all_shown: Sequence[Shown], suffix: str) -> Iterator[tuple[Shown, str, dict[str, float]]]:
    """Each metric whose name ends so: the recipe, the metric, and its value on each machine."""
    for shown in all_shown:
        for metric in metric_names(shown):
            if metric.endswith(suffix):
                runs = [record.run for record in shown.passed if metric in record.run.metrics]
                yield shown, metric, {run.machine.name: run.metrics[metric] for run in runs}


def _rows_of(all_shown: Sequence[Shown], suffix: str, but: str = " ") -> list[list[str]]:
    label_of = labels([record for shown in all_shown for record in shown.passed])
    rows = [["Recipe: metric", *map(plain, label_of.values())]]
    for shown, metric, values in metrics_ending(all_shown, suffix):
        if metric.startswith(but):
            continue
        name = f":doc:`{shown.recipe.title} </{shown.recipe.page}>`"
        name += _explanation(shown, metric) or f": {metric_label(metric)}"
        unit = split_unit(metric)[1]
        times = " ×" if unit == "_x" else ""
        rows.append([name, *(_number(values[m], unit) + times if m in values else "" for m in label_of)])
    return rows


def _run_rows(all_shown: Sequence[Shown], today: date) -> list[list[str]]:
    rows = [["Recipe", "Machine", "torch", "Day", "Age", "Seconds", "State"]]
    label_of = labels([record for shown in all_shown for record in (*shown.passed, *shown.older)])
    for shown in all_shown:
        for record in (*shown.passed, *shown.older):
            run = record.run
            day = datetime.fromisoformat(run.started).date()
            age, state = (today - day).days, "current" if record in shown.passed else "**older code**"
            days = f"{age} day{'s' if age != 1 else ''}"
            machine, torch = plain(label_of[run.machine.name]), run.versions.get("torch", "")
            rows.append([plain(shown.recipe.title), machine, torch, str(day), days, f"{run.seconds:.0f}", state])
    return rows


def as_json(all_shown: Sequence[Shown], figures: Sequence[Figure]) -> str:
    """The recipes and what their metrics are, every run's facts, metrics and claims, and the published figures."""
    parts = ("started", "seconds", "device", "versions", "metrics", "claims")
    runs = [
        {
            "recipe": shown.recipe.name,
            "machine": record.run.machine.as_dict(),
            "current_code": record in shown.passed,
            **{part: getattr(record.run, part) for part in parts},
        }
        for shown in all_shown
        for record in (*shown.passed, *shown.older)
    ]
    recipes = {
        shown.recipe.name: {"title": shown.recipe.title, "metrics": dict(shown.recipe.front_matter.metrics)}
        for shown in all_shown
    }
    content = {"recipes": recipes, "runs": runs, "published": [vars(figure) for figure in figures]}
    return json.dumps(content, indent=1, ensure_ascii=False)


def as_csv(all_shown: Sequence[Shown], figures: Sequence[Figure]) -> str:
    """One row for each figure, measured or published."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["kind", "recipe", "metric", "value", "machine", "version", "date", "source"])
    for shown in all_shown:
        for record in (*shown.passed, *shown.older):
            kind = "measured" if record in shown.passed else "measured, older code"
            version = f"torch {record.run.versions['torch']}" if "torch" in record.run.versions else ""
            run = record.run
            for metric, value in run.metrics.items():
                table.writerow([kind, run.name, metric, value, run.machine.label, version, run.started, ""])
    for f in figures:
        table.writerow(["published", f.recipe, f.metric, f.value, f.machine, f.version, f.date, f.address])
    return text.getvalue()


def _value_text(record: Record | None, metric: str) -> str:
    if record is None or metric not in record.run.metrics:
        return ""
    stem, unit = split_unit(metric)
    spread = record.run.metrics.get(f"{stem}{_IQR}{unit}")
    text = _number(record.run.metrics[metric], unit)
    text += f" (IQR {_number(spread, unit)})" if spread is not None else ""
    return f"{text} ×" if unit == "_x" else text


def _number(value: float, unit: str) -> str:
    if type(value) is int or unit in ("_count", "_bytes"):
        return f"{value:,.0f}"
    if 0 < abs(value) < 0.1:
        return f"{value:.2g}"
    return f"{value:,.2f}" if abs(value) < 100 else f"{value:,.0f}"


def metric_label(metric: str) -> str:
    """A metric's name as words, with its unit."""
    stem, unit = split_unit(metric)
    text = "" if unit == "_x" else _UNIT_TEXT[unit]  # A ratio has its sign beside its value.
    words = [_SPELLING.get(word, word) for word in stem.split("_") if word]
    return plain(" ".join(words)) + (f", {text}" if text else "")


def _explanation(shown: Shown, metric: str) -> str:
    """What a recipe's front matter says of a metric, below its name; or nothing."""
    text = shown.recipe.front_matter.metrics.get(metric, "")
    return _below("what", plain(text)) if text else ""


def _below(kind: str, text: str) -> str:
    """One more paragraph of a table's cell."""
    return f"\n\n       .. container:: recipe-{kind}\n\n          {text}\n"


def _reference_text(figure: Figure) -> str:
    value = f"{figure.value:,} {_UNIT_TEXT[split_unit(figure.metric)[1]]}"  # With the digits of its source.
    version = "version not named" if figure.version == "not named" else plain(figure.version)
    where = f"{plain(figure.what)}; {plain(figure.machine)}, {version}"
    return f"*Published: {value.strip()}* ({where}; `{figure.source} <{figure.address}>`__)"


def _heading(text: str, underline: str) -> str:
    return f"{text}\n{underline * len(text)}\n"


def _table(rows: Sequence[Sequence[str]]) -> str:
    """A table with a header row and, for screen readers, a header column."""
    if len(rows) < 2:
        return "*Nothing on record.*\n"
    lines = [".. list-table::", "   :header-rows: 1", "   :stub-columns: 1", "   :class: recipe-table", ""]
    for row in rows:
        lines += [f"   {'*' if number == 0 else ' '} - {cell}" for number, cell in enumerate(row)]
    return "\n".join(lines) + "\n"
