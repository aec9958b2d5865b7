"""The confusion matrix on an HTML page, and which classes are taken for which."""

import math
from collections.abc import Sequence

import numpy as np

from segtrain.report.page import Cell, Column, json_data, table
from segtrain.text import escape

PAIRS = 10  # by share, and as many by pixels


def heat_map(
    counts: np.ndarray,
    names: Sequence[str],
    title: str,
    row_title: str = "truth",
    column_title: str = "prediction",
) -> str:
    """A table of counts whose rows are shown as shares of their sums.

    It can be enlarged until names and percentages are readable, however many classes there are. The
    colour goes with the square root of the share, so that small confusions are seen.

    Args:
        counts: (K, K) whole numbers.
        names: K, of rows and columns.
        title: what it shows.
        row_title, column_title: what rows and columns are.
    """
    data = {"names": list(names), "counts": counts.tolist(),
            "row": row_title, "column": column_title}  # fmt: skip
    scale = "".join(
        f'<span style="left:{100 * math.sqrt(share):.1f}%">{100 * share:g}</span>'
        for share in (0, 0.01, 0.05, 0.2, 0.5, 1)
    )
    return (
        f'<figure class="chart heat"><figcaption>{escape(title)}</figcaption>'
        '<div class="heat-tools">'
        '<label>zoom <input type="range" class="heat-zoom" step="1"></label>'
        f'<span class="heat-scale"><i></i>{scale}<em>% of the {escape(row_title)}</em></span></div>'
        '<p class="heat-said" role="status" aria-live="polite">Point at a cell, or use the arrow '
        "keys.</p>"
        '<div class="heat-view" tabindex="0" role="application" '
        f'aria-label="{escape(title)}: arrow keys choose a cell">'
        '<canvas class="heat-corner"></canvas><canvas class="heat-top"></canvas>'
        '<canvas class="heat-left"></canvas><canvas class="heat-cells"></canvas></div>'
        f"{json_data('heat-data', data)}</figure>\n"
    )


def confused_pairs(counts: np.ndarray, names: Sequence[str]) -> str:
    """HTML: a table of the pairs that are confused most, by share of the class and by pixels.

    Args:
        counts: (K, K) pixels, rows truth, columns prediction.
        names: of the K classes.

    Returns:
        Empty where nothing is confused.
    """
    wrong = counts - np.diag(counts.diagonal())
    sums = counts.sum(1)
    shares = np.divide(wrong, sums[:, None], out=np.zeros(wrong.shape), where=sums[:, None] > 0)
    largest = [np.argsort(-kind, axis=None)[:PAIRS].tolist() for kind in (shares, wrong)]
    chosen = (np.unravel_index(place, wrong.shape) for place in {*largest[0], *largest[1]})
    places = sorted(chosen, key=lambda at: -shares[at])
    rows = [
        [
            names[true],
            names[predicted],
            Cell(f"{100 * shares[true, predicted]:.2f}", float(shares[true, predicted])),
            Cell(f"{wrong[true, predicted]:,}", int(wrong[true, predicted])),
        ]
        for true, predicted in places
        if wrong[true, predicted]
    ]
    heads = [
        Column("truth"),
        Column("taken for"),
        Column("% of its pixels", numeric=True, note="share of the true class's pixels"),
        Column("pixels", numeric=True),
    ]
    return table(heads, rows, "Most confused classes") if rows else ""
