"""The page of an atlas as one HTML file: all models in the plane, search, and the neighbours of each."""

from collections import Counter
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from wsr.errors import WsrError
from wsr.exchange.atlas import Atlas, chance
from wsr.exchange.kin import COPY
from wsr.report.html import asset, framed, text
from wsr.runtime.atomic import write_atomically
from wsr.runtime.seeds import generator
from wsr.statistics.neighbourhoods import neighbourhoods
from wsr.store.atlas_file import AtlasEntry, AtlasFile

MOST = 20_000
"""Largest number of models on a page; of more, so many are drawn at random."""
COLOURS = 7
"""Datasets with a colour of their own, the largest ones; the eighth colour is the grey of the others."""
NEIGHBOURS = 10


def write_atlas_page(atlas: Atlas, to: str | Path, *, seed: int = 0) -> int:
    """Writes the page of an atlas, and returns the number of models on it.

    Args:
      atlas: the atlas.
      to: the file to write.
      seed: seed of the positions, and of the choice of models where there are more than ``MOST``.

    Raises:
      WsrError: if the atlas has fewer than two models.
    """
    file = atlas.file
    entries, rows = file.entries(), np.concatenate([np.zeros((0, file.size), np.float32), *_rows(file)])
    whole = len(entries)
    if whole < 2:
        raise WsrError(f"{atlas.store.where}: its atlas has {whole} models; a page needs at least two")
    if whole > MOST:
        chosen = np.sort(generator(seed, "atlas").permutation(whole)[:MOST])
        entries, rows = [entries[at] for at in chosen], rows[chosen]
    noise = chance(whole, file.size)
    title, kin = f"Atlas of {Path(atlas.store.where).name}", file.kin()
    content = content_of(entries, rows, title=title, noise=noise, kin=kin, seed=seed)
    content |= {"whole": whole, "base": atlas.store.base_name}
    write_atomically(Path(to), atlas_html(content).encode())
    return len(entries)


def content_of(
    entries: list[AtlasEntry],
    rows: Float32[np.ndarray, "models size"],
    *,
    title: str,
    noise: float,
    kin: Mapping[tuple[str, str], str],
    seed: int,
) -> dict[str, Any]:
    """Returns the data of the page, by columns: a page of ten thousand models takes less space so.

    Args:
      entries: the models.
      rows: the directions of their sketches.
      title: title of the page.
      noise: cosine that models without anything in common reach by chance.
      kin: what models are to one another, see ``AtlasFile.kin``.
      seed: seed of the positions.
    """
    found = neighbourhoods(rows, count=NEIGHBOURS, least=noise, seed=seed)
    largest = [name for name, _ in Counter(entry.dataset for entry in entries).most_common(COLOURS)]
    places = found.positions - found.positions.mean(axis=0)
    places /= max(float(np.abs(places).max()), 1e-12)
    return {
        "title": title,
        "noise": noise,
        "datasets": largest,
        "names": [entry.name for entry in entries],
        "sources": [entry.source for entry in entries],
        "dataset": [entry.dataset for entry in entries],
        "length": [float(f"{entry.length:.4g}") for entry in entries],
        "copies": _copies(entries),
        "kin": _kin(entries, found.neighbours.tolist(), kin),
        "cluster": found.clusters.tolist(),
        "x": [round(x, 4) for x in places[:, 0].tolist()],
        "y": [round(y, 4) for y in places[:, 1].tolist()],
        "neighbours": found.neighbours.tolist(),
        "cosines": [[round(own, 3) for own in row] for row in found.cosines.tolist()],
    }


def atlas_html(content: dict[str, Any]) -> str:
    """Returns the text of the page.

    Args:
      content: its data, see ``content_of``.
    """
    scripts = [asset("explorer", "d3.min.js"), asset("atlas", "atlas.js")]
    models = len(content["names"])
    clusters = len(set(content["cluster"]) - {-1})
    alone = content["cluster"].count(-1)
    shown = f", {models:,} of them drawn at random" if content["whole"] > models else ""
    body = f"""
<header>
<h1>{text(content["title"])}</h1>
<p class="lead">{content["whole"]:,} models fine-tuned from {text(content["base"])}{shown}: {clusters} clusters of at
least five models; {alone:,} models belong to none. Pick a model to see what it resembles.</p>
</header>
<main class="atlas">
<section aria-labelledby="plane">
<h2 id="plane" class="label">Models by the direction in which fine-tuning moved them</h2>
<canvas id="map" tabindex="0" role="img" aria-label="Map of the models. Find a model with the search field."></canvas>
<p id="legend" class="legend"></p>
<p class="caption">Neighbours on the map are alike; its distances and axes mean nothing. Scroll or pinch to zoom, drag
to move.</p>
</section>
<div class="column">
<section>
<label class="label" for="search">Find a model, dataset or source</label>
<input id="search" type="search" autocomplete="off">
<ul id="found" class="names-list"></ul>
</section>
<section id="model" aria-live="polite"></section>
</div>
</main>
<footer><p class="muted">Cosines are estimates from sketches. Models without anything in common reach
{content["noise"]:.3f} by chance, so neighbours below it mean nothing. <code>wsr atlas where MODEL</code> computes
cosines from the weights and tells what the nearest models are to it; this page then shows it, too.</p>
<details><summary>Figures are drawn with D3, under the ISC licence</summary>
<pre>{escape(asset("explorer", "d3.LICENSE"))}</pre></details></footer>
<div id="tip" class="tip" role="tooltip" hidden></div>
"""
    skip, style = ("search", "Skip to the search"), asset("atlas", "atlas.css")
    return framed(content["title"], body, skip=skip, style=style, scripts=scripts, data=content)


def _rows(file: AtlasFile) -> list[Float32[np.ndarray, "rows size"]]:
    return [rows for _, rows in file.directions()]


def _kin(
    entries: list[AtlasEntry], neighbours: list[list[int]], known: Mapping[tuple[str, str], str]
) -> dict[int, list[str]]:
    """Returns what the neighbours of a model are to it, for models of which that is known of any."""
    found = {}
    for at, near in enumerate(neighbours):
        own, others = entries[at].sha256, [entries[other].sha256 for other in near]
        words = [COPY if other == own else known.get((own, other), "") for other in others]
        if any(words):
            found[at] = words
    return found


def _copies(entries: list[AtlasEntry]) -> list[list[int]]:
    """Returns for each model the others with the same weights."""
    same: dict[str, list[int]] = {}
    for at, entry in enumerate(entries):
        same.setdefault(entry.sha256, []).append(at)
    return [[other for other in same[entry.sha256] if other != at] for at, entry in enumerate(entries)]
