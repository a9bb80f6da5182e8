"""The explorer as one HTML file: data, styles and scripts stand in it, and its policy forbids every request."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

from wsr.report.html import asset, framed, text

HOME = "explorer"
SCRIPTS = ("d3.min.js", "polynomial.js", "coordinates.js", "figures.js", "explorer.js")
"""In the order in which they run."""


class Loss(NamedTuple):
    """What a reader learns about a loss."""

    meaning: str
    followed: str
    """What the polynomials follow."""


LOSSES = {
    "generalised_loss": Loss(
        "The generalised loss is the test loss of a new linear probe on the frozen encoder.",
        "the logits of every test text",
    ),
    "language_model_loss": Loss(
        "The loss of plain texts is the model's own loss, a mean over all predicted tokens; the perplexity is its "
        "exponential.",
        "the log-likelihood of the texts",
    ),
    "choice_loss": Loss(
        "The choice loss is the cross-entropy of the right answer under the softmax of the answers' log-likelihoods; "
        "the accuracy is the share of questions whose right answer has the highest one.",
        "the log-likelihood of every answer",
    ),
}


def explorer_html(content: Mapping[str, Any]) -> str:
    """Returns the text of the page.

    Args:
      content: its data, see ``wsr.report.explorer.content``.
    """
    scripts = [asset(HOME, name) for name in SCRIPTS]
    title, datasets = content["title"], content["datasets"]
    columns = "".join(f'<th scope="col" class="number">{text(own["name"])}</th>' for own in datasets)
    body = f"""
<header>
<h1>{text(title)}</h1>
<p class="lead">{_lead(content)}</p>
</header>
<main class="explorer">
<section id="now" class="now" aria-label="Losses at the point"></section>
<div class="column">
<section aria-labelledby="population">
<h2 id="population">Population</h2>
<p id="hint" class="muted" role="status"></p>
<svg id="map" role="group" aria-label="Map of the population; models are buttons"></svg>
<p id="legend" class="legend"></p>
<details id="by-name"><summary>Pick by name</summary><div id="members" class="names-list"></div></details>
<p class="caption">Neighbours on the map are alike; its distances and axes mean nothing.</p>
</section>
<section aria-labelledby="coefficients">
<h2 id="coefficients">Coefficients</h2>
<ul id="sliders" class="sliders"></ul>
<p id="sum" class="muted" role="status"></p>
<p class="row"><label><input type="checkbox" id="held" checked> Keep the sum at 1</label>
<button type="button" id="middle">Go to the middle</button><button type="button" id="clear">Clear picks</button></p>
</section>
</div>
<div class="column">
<section aria-labelledby="scores">
<div class="heading"><h2 id="scores">Scores at the point</h2>
<fieldset class="switch"><legend class="label">Figures show</legend>
<label><input type="radio" name="quantity" value="loss" checked>loss</label>
<label><input type="radio" name="quantity" value="score">{_metric(content)}</label>
</fieldset></div>
<div id="cards" class="cards" tabindex="-1"></div>
</section>
<section aria-labelledby="take">
<h2 id="take">Take this model</h2>
<pre><code id="command"></code></pre>
<p class="row"><button type="button" id="copy">Copy command</button><button type="button" id="link">Copy link</button>
<span id="said" class="hidden" role="status"></span></p>
<h3>Nearest scored points</h3>
<div class="scroll" role="region" aria-label="Nearest scored points" tabindex="0"><table><thead><tr>
<th scope="col">Point</th><th scope="col" class="number">Distance</th>{columns}</tr></thead>
<tbody id="near"></tbody></table></div>
<p class="caption">Distance in weight space, in radii of the population.</p>
</section>
</div>
</main>
<footer>{_method(content)}</footer>
<div id="tip" class="tip" role="tooltip" hidden></div>
"""
    return framed(
        title,
        body,
        skip=("cards", "Skip to the scores"),
        style=asset(HOME, "explorer.css"),
        scripts=scripts,
        data=content,
    )


def _lead(content: Mapping[str, Any]) -> str:
    models, datasets = len(content["members"]), content["datasets"]
    return (
        f"{models} models fine-tuned from one checkpoint, and everything between them. Pick models on the map and drag "
        f"the point: the page shows how the model there scores on {text(_listed([own['name'] for own in datasets]))}."
    )


def _metric(content: Mapping[str, Any]) -> str:
    metrics = {own["metric"].replace("_", " ") for own in content["datasets"]}
    return text(metrics.pop()) if len(metrics) == 1 else "score"


def _method(content: Mapping[str, Any]) -> str:
    records = content["datasets"]
    held = sum(kind == "held out" for kind in content["exact"]["kinds"])
    losses = [LOSSES[name] for name in dict.fromkeys(own["loss"] for own in records)]
    followed = _listed([own.followed for own in losses])
    probes = """<p>All probes on a dataset have the same penalty C. Unless it was given, cross-validation chose it at
the centroid. <code>wsr evaluate --inverse_l2=C</code> with that C gives the same losses.</p>
"""
    return f"""<details class="method"><summary>How these numbers are made</summary>
<p>{" ".join(own.meaning for own in losses)} wsr scored
{len(content["exact"]["kinds"])} points exactly on each dataset (rings in the figures). For all other points of the
hull, this page evaluates polynomials: {followed} as functions of the coefficients, fitted at
{len(content["nodes"])} of the scored points. {held} other scored points were held out; the table shows the errors
there. The band follows from them: with a confidence of {100 * content["confidence"]:g} %, at most
{100 * content["share"]:g} % of the points drawn like them exceed their bound. Outside the hull, where a coefficient is
negative or the sum is not 1, nothing is known.</p>
{probes if any(own["inverse_l2"] for own in records) else ""}{_errors(records)}
<p class="caption">The figures are drawn by D3, copyright 2010-2023 Mike Bostock, under the ISC licence:</p>
<pre class="licence">{escape(asset(HOME, "d3.LICENSE"))}</pre></details>"""


def _errors(records: Sequence[Mapping[str, Any]]) -> str:
    """A table of the datasets and the errors on them; a column that says nothing is left out."""
    cells = [
        {
            "Probe texts": own["probe_texts"],
            "Test texts": own["texts"],
            "C": None if own["inverse_l2"] is None else f"{own['inverse_l2']:g}",
            "Degree": own["degree"],
            "Mean error": f"{own['held_out_error']:.5f}",
            "Largest error": f"{own['held_out_largest']:.5f}",
        }
        for own in records
    ]
    columns = [name for name in cells[0] if any(row[name] is not None for row in cells)]
    head = "".join(f'<th scope="col" class="number">{name}</th>' for name in columns)
    rows = "".join(
        f'<tr><th scope="row">{text(own["name"])}</th>'
        + "".join(f'<td class="number">{"–" if row[name] is None else row[name]}</td>' for name in columns)
        + "</tr>"
        for own, row in zip(records, cells, strict=True)
    )
    return f"""<div class="scroll" role="region" aria-label="Datasets and errors" tabindex="0"><table><thead><tr>
<th scope="col">Dataset</th>{head}</tr></thead><tbody>{rows}</tbody></table></div>"""


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
