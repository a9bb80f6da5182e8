"""Are learned coefficients better than the centroid on texts that nothing has seen? Prints the table of the docs.

python -m benchmarks.learned [--store=runs/demo/store] [--targets=...] [--points=FOLDER]

Coefficients are chosen on the probe and validation splits of a target and compared on its test split.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from absl import app, flags, logging

from wsr.data.dataset import Dataset
from wsr.data.load import load_dataset
from wsr.engine.evaluate import Evaluation, Protocol, evaluate
from wsr.engine.learned_coefficients import Space, learn_coefficients
from wsr.engine.settings import Settings
from wsr.geometry.sampling import corners
from wsr.merging.soups import greedy_soup, on_validation
from wsr.region.learned import learned_region
from wsr.region.region import Region
from wsr.runtime.compilation import use_persistent_cache
from wsr.statistics.difference import paired_difference
from wsr.store import Store
from wsr.store.results import Results

_STORE = flags.DEFINE_string("store", "runs/demo/store", "The store of the demo.")
_TARGETS = flags.DEFINE_list("targets", ["vader_amazon", "vader_movie", "newsgroups_rec_sci"], "Datasets.")
_POINTS = flags.DEFINE_string("points", None, "Where finished points are kept; by default in memory.")
_STEPS = flags.DEFINE_integer("steps", 8, "Gradients of each search.")
SIZES = {"probe": 120, "validation": 120, "test": 240}
MAX_LENGTH = 32


def main(arguments: list[str]) -> None:
    """Chooses and compares points for each target, without its own members and with them."""
    logging.set_verbosity(logging.WARNING)
    use_persistent_cache()
    store = Store.open(_STORE.value)
    region = learned_region(store)
    tokenizer = store.checkpoint().processor
    settings = Settings(results=Results.on_disk(Path(_POINTS.value)) if _POINTS.value else Results.in_memory())
    lines = [
        "| target | members | point | validation loss | test loss | accuracy | below the centroid by, validation "
        "| test (95 % over texts) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for target in _TARGETS.value:
        dataset = load_dataset(target, tokenizer, max_length=MAX_LENGTH, sizes=SIZES)
        others = region.without_dataset(target)
        lines += _compared(others, dataset, settings, f"{len(others)}, without the target's", spaces=("hull", "free"))
        lines += _compared(region, dataset, settings, f"all {len(region)}", spaces=("hull",))
        print("\n".join(lines), flush=True)


def _compared(
    region: Region, dataset: Dataset, settings: Settings, title: str, spaces: tuple[Space, ...]
) -> Iterator[str]:
    judged = on_validation(dataset)
    alone = evaluate(region, corners(len(region)), judged, settings=settings).generalised_loss
    rows = {
        "centroid, uniform soup": region.centroid(),
        "best member": corners(len(region))[np.argmin(alone)],
        "greedy soup": greedy_soup(region, dataset, Protocol(), settings),
    }
    for space in spaces:
        learned = learn_coefficients(region, dataset, space=space, steps=_STEPS.value)
        print(f"{dataset.name}, {title}, {space}: {np.round(learned.losses, 4).tolist()}", flush=True)
        for name, coefficient in zip(region.names, learned.coefficients, strict=True):
            print(f"    {coefficient:+.3f} {name}", flush=True)
        rows[f"learned, {space}"] = learned.coefficients
    chosen = np.stack(list(rows.values()))
    validation = evaluate(region, chosen, judged, settings=settings)
    test = evaluate(region, chosen, dataset, settings=settings)
    for number, name in enumerate(rows):
        point = f"{name} ({np.count_nonzero(chosen[number])})"
        yield f"| {dataset.name} | {title} | {point} {_cells(validation, test, number)}"


def _cells(validation: Evaluation, test: Evaluation, number: int) -> str:
    gain = paired_difference(test.losses[0], test.losses[number])
    gained = "" if not number else f"{gain.mean:+.4f} ({gain.low:+.4f} to {gain.high:+.4f})"
    seen = "" if not number else f"{validation.generalised_loss[0] - validation.generalised_loss[number]:+.4f}"
    return (
        f"| {validation.generalised_loss[number]:.4f} | {test.generalised_loss[number]:.4f} "
        f"| {test.scores[number]:.3f} | {seen} | {gained} |"
    )


if __name__ == "__main__":
    app.run(main)
