"""The kinds of figure: a module each, from the data of a ``document.Figure`` to a canvas."""

from collections.abc import Callable, Mapping
from typing import Any

from wsr.report.canvas import Canvas
from wsr.report.kinds.contours import plot_contours
from wsr.report.kinds.curves import plot_curves
from wsr.report.kinds.dendrogram import plot_dendrogram
from wsr.report.kinds.groups import plot_groups
from wsr.report.kinds.heatmap import plot_heatmap
from wsr.report.kinds.intervals import plot_intervals
from wsr.report.kinds.map import plot_map
from wsr.report.kinds.triangle import plot_triangle

PLOTS: Mapping[str, Callable[[Mapping[str, Any]], Canvas]] = {
    "heatmap": plot_heatmap,
    "map": plot_map,
    "curves": plot_curves,
    "groups": plot_groups,
    "intervals": plot_intervals,
    "dendrogram": plot_dendrogram,
    "contours": plot_contours,
    "triangle": plot_triangle,
}
