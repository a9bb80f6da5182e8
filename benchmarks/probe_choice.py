"""Whether the sign of "centroid minus pretrained" depends on the penalty of the probe: the table of docs/evaluate.md.

python -m benchmarks.probe_choice [--store=runs/demo/store] [--out=benchmarks/results/probe_choice.jsonl]

The members are those that `make demo` left. For each target, the centroid of the members of the other datasets and the
pretrained model are scored with several penalties, on the same disjoint draws of probe texts.
"""

from pathlib import Path

import numpy as np
from absl import app, flags

from wsr.data.load import load_dataset
from wsr.engine.evaluate import Protocol, fit_draws
from wsr.engine.region_features import region_features
from wsr.region.region import Region
from wsr.runtime.compilation import use_persistent_cache
from wsr.store import Store
from wsr.store.results import write_rows

_STORE = flags.DEFINE_string("store", "runs/demo/store", "Where `make demo` left its members.")
_OUT = flags.DEFINE_string("out", None, "A JSONL file for the rows.")

TARGETS = ("vader_movie", "vader_tweets", "newsgroups_rec_sci", "reuters_r8")
DRAWS, PROBE_TEXTS, TEST_TEXTS, MAX_LENGTH = 3, 160, 480, 32
PROTOCOLS = (
    *(Protocol(inverse_l2=inverse_l2, draws=DRAWS) for inverse_l2 in (0.1, 1.0, 10.0)),
    Protocol(draws=DRAWS),
)


def main(_: list[str]) -> None:
    """Scores both points on each target, prints the table and writes the rows."""
    use_persistent_cache()
    store = Store.open(_STORE.value)
    checkpoint, region = store.checkpoint(), Region.from_store(store)
    sizes = {"probe": DRAWS * PROBE_TEXTS, "test": TEST_TEXTS}
    rows = []
    print("| target | probe | C | centroid | pretrained | difference | error over texts | each draw |")
    print("|---|---|---|---|---|---|---|---|")
    for target in TARGETS:
        dataset = load_dataset(target, checkpoint.processor, max_length=MAX_LENGTH, sizes=sizes)
        others = region.without_dataset(target)
        points = np.stack([others.centroid(), np.zeros(len(others))])
        features = {split: np.empty((2, size, region.model.hidden), np.float32) for split, size in sizes.items()}
        for numbers, found in region_features(others, points, {split: dataset.splits[split] for split in sizes}):
            for split, values in found.items():
                features[split][numbers] = np.asarray(values)[: len(numbers)]
        for protocol in PROTOCOLS:
            fits = fit_draws(features, dataset, protocol)
            losses = np.stack([np.asarray(fit.losses, np.float64) for fit in fits])
            by_text = losses[:, 0] - losses[:, 1]
            draws = by_text.mean(axis=1)
            row = {
                "target": target,
                "probe": protocol.told,
                "inverse_l2": [np.asarray(fit.inverse_l2).tolist() for fit in fits],
                "converged": all(bool(fit.converged.all()) for fit in fits),
                "centroid": float(losses[:, 0].mean()),
                "pretrained": float(losses[:, 1].mean()),
                "difference": float(draws.mean()),
                "error_over_texts": float(by_text.mean(axis=0).std(ddof=1) / np.sqrt(TEST_TEXTS)),
                "difference_by_draw": draws.tolist(),
                "members": len(others),
                "probe_texts": PROBE_TEXTS,
                "n": TEST_TEXTS,
            }
            rows.append(row)
            chosen = sorted({value for draw in row["inverse_l2"] for value in draw})
            penalty = f"{chosen[0]:.2g}" if len(chosen) == 1 else f"{chosen[0]:.2g} to {chosen[-1]:.2g}"
            print(
                f"| {target} | {'fixed' if protocol.inverse_l2 else 'cross-validated'} | {penalty} "
                f"| {row['centroid']:.3f} | {row['pretrained']:.3f} | {row['difference']:+.3f} "
                f"| {row['error_over_texts']:.3f} | {', '.join(f'{draw:+.3f}' for draw in draws)} |",
                flush=True,
            )
    if _OUT.value:
        write_rows(Path(_OUT.value), rows)


if __name__ == "__main__":
    app.run(main)
