"""scores members of a store, their centroid, points between them and models merged from them on a dataset: the
generalised loss (a fresh linear probe on the frozen encoder) with its 95 % interval over texts, and the dataset's own
metric. Finished points are kept in the store's folder.

--loss=language_model takes a decoder's own loss instead, and its perplexity. No labels are needed: a .txt file holds a
text a line, a folder of them a text a file. A text of more than --max_length tokens goes on in another window."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from absl import flags

from wsr.cli import dataset_flags, device_flags

if TYPE_CHECKING:
    import numpy as np

    from wsr.compare import Interval
    from wsr.data.dataset import AnySplit
    from wsr.region import Region


class Target(NamedTuple):
    """What points are scored on, and how."""

    dataset: Any
    splits: "Mapping[str, AnySplit]"
    """What is read."""
    planned: "Region"
    """What reads it."""
    evaluate: Callable[..., Any]
    by_text: "Callable[[Any], np.ndarray]"
    """Of what it found: values [points, texts] whose mean over texts is the loss."""
    metrics: tuple[str, str]


def define(values: flags.FlagValues) -> None:
    """Defines the verb's flags."""
    dataset_flags.define(values)
    flags.DEFINE_string("store", None, "The store.", flag_values=values)
    flags.DEFINE_list("on", [], "Datasets to score on: names, files, folders.", flag_values=values)
    flags.DEFINE_enum("loss", "generalised", list(TARGETS), "What points are scored by.", flag_values=values)
    flags.DEFINE_list("merged", [], "Folders that wsr merge wrote, to be scored too.", flag_values=values)
    flags.DEFINE_integer("interior", 4, "Points drawn from the convex hull.", lower_bound=0, flag_values=values)
    flags.DEFINE_bool(
        "leave_out", True, "Leave members of the scored dataset out of hull and centroid.", flag_values=values
    )
    flags.DEFINE_integer("probe_size", 300, "Texts the probe is fitted on; 0: all.", flag_values=values)
    flags.DEFINE_integer("test_size", 300, "Texts the loss is taken on; 0: all.", flag_values=values)
    flags.DEFINE_string("probe", "linear", "The classifier: linear or roberta_head.", flag_values=values)
    flags.DEFINE_float("inverse_l2", 1.0, "C of the linear probe.", lower_bound=0.0, flag_values=values)
    device_flags.define(values, "Points")
    flags.DEFINE_enum(
        "precision",
        "float32",
        ["float32", "bfloat16"],
        "What the encoder computes in; bfloat16 is for accelerators.",
        flag_values=values,
    )
    flags.DEFINE_integer("seed", 0, "Of the points drawn.", flag_values=values)
    flags.DEFINE_float(
        "surrogate_tolerance",
        None,
        "Score points of the hull by a surrogate where its mean error is below this; the rows tell the error.",
        lower_bound=0.0,
        flag_values=values,
    )
    flags.DEFINE_string("out", None, "A JSONL file for the rows.", flag_values=values)


def run(values: flags.FlagValues, positional: Sequence[str]) -> None:
    """Evaluates and prints a table, best first."""
    from functools import partial
    from pathlib import Path

    import numpy as np

    from wsr import seeds
    from wsr.cli.checks import one_of, refuse_positional, required
    from wsr.cli.population import open_base, open_region
    from wsr.compare import mean_interval
    from wsr.compilation import use_persistent_cache
    from wsr.errors import WsrError
    from wsr.evaluate import Protocol
    from wsr.outgoing.scores import keep_scores
    from wsr.probe import PROBES
    from wsr.progress import progress
    from wsr.region_features import plan_features
    from wsr.results import Points, write_rows
    from wsr.sampling import centroid, convex_hull, corners
    from wsr.surrogate import evaluate_hull

    refuse_positional(positional)
    required("--store", values.store)
    required("--on", values.on)
    one_of("--probe", values.probe, PROBES)
    if values.loss != "generalised" and values.surrogate_tolerance is not None:
        raise WsrError("--surrogate_tolerance is for --loss=generalised: the surrogate is of a probe's features")
    use_persistent_cache()
    store, region = open_region(values.store)
    tokenizer = open_base(store).tokenizer
    protocol = Protocol(probe=values.probe, inverse_l2=values.inverse_l2, precision=values.precision)
    points = Points.on_disk(Path(values.store) / "points")
    merged = [_merged(region, folder) for folder in values.merged]
    rows: list[dict] = []
    for name in values.on:
        target = TARGETS[values.loss](values, name, tokenizer, region)
        dataset = target.dataset
        others = region.without_dataset(dataset.name) if values.leave_out else region
        draw = seeds.generator(values.seed, "hull", dataset.name)
        groups = [
            ("pretrained", region, np.zeros((1, len(region)))),
            ("member", region, corners(len(region))),
            ("centroid", others, centroid(len(others))),
            *(("merged", alone, corners(1)) for alone in merged),
        ]
        if len(others) > 1 and values.interior:
            groups.append(("interior", others, convex_hull(draw, values.interior, len(others))))
        total = sum(len(coefficients) for _, _, coefficients in groups)
        plan = plan_features(
            target.planned,
            np.tile(centroid(len(region)), (total, 1)),
            target.splits,
            chunk=values.chunk,
            memory_budget_gib=values.memory_budget_gib,
            precision=values.precision,
        )
        print(f"{dataset.name}: {total} points, {plan}", flush=True)
        intervals: list[Interval] = []
        with progress(f"evaluating on {dataset.name}", total, "points") as counter:
            for group, part, coefficients in groups:
                by_surrogate = values.surrogate_tolerance is not None and group == "interior"
                score = (
                    partial(evaluate_hull, tolerance=values.surrogate_tolerance) if by_surrogate else target.evaluate
                )
                scored = score(
                    part,
                    coefficients,
                    dataset,
                    protocol=protocol,
                    points=points,
                    chunk=plan.chunk,
                    memory_budget_gib=plan.budget_gib,
                    counter=counter,
                )
                rows += scored.rows(group)
                intervals += [mean_interval(losses) for losses in target.by_text(scored)]
        _show(dataset.name, target.metrics, [row for row in rows if row["dataset"] == dataset.name], intervals)
    keep_scores(store, [row for row in rows if row["group"] != "merged"])
    if values.out:
        write_rows(Path(values.out), rows)
        print(f"rows: {values.out}")


def _generalised(values: flags.FlagValues, name: str, tokenizer: Any, region: "Region") -> Target:
    from wsr.evaluate import evaluate

    sizes = {split: size for split, size in (("probe", values.probe_size), ("test", values.test_size)) if size}
    dataset = dataset_flags.load(values, name, tokenizer, sizes=sizes)
    splits = {split: dataset.splits[split] for split in ("probe", "test")}
    metrics = ("generalised_loss", dataset.metric)
    return Target(dataset, splits, region, evaluate, lambda found: found.losses, metrics)


def _language_model(values: flags.FlagValues, name: str, tokenizer: Any, region: "Region") -> Target:
    from wsr.language_model import METRICS, evaluate_language_model, with_losses

    texts = dataset_flags.load_texts(values, name, tokenizer, size=values.test_size or None)
    for note in texts.notes:
        print(note)
    splits, planned = {"texts": texts.windows}, with_losses(region)
    return Target(texts, splits, planned, evaluate_language_model, lambda found: found.by_text, METRICS)


TARGETS = {"generalised": _generalised, "language_model": _language_model}


def _merged(region: "Region", folder: str) -> "Region":
    """A merged model as a region of its own."""
    from pathlib import Path

    from wsr.errors import WsrError
    from wsr.models import load
    from wsr.region import from_params
    from wsr.trees import flatten

    if not Path(folder).is_dir():
        raise WsrError(f"--merged={folder}: no such folder; give one that wsr merge wrote")
    params = load(folder).params
    found, expected = ({path: leaf.shape for path, leaf in flatten(own).items()} for own in (params, region.base))
    if found != expected:
        raise WsrError(f"--merged={folder}: its encoder is not of the form of the store's")
    return from_params(region.model, region.base, {Path(folder).name: params})


def _show(dataset: str, metrics: tuple[str, str], rows: list[dict], intervals: Sequence["Interval"]) -> None:
    from wsr.cli.tables import show_table

    losses, scores = ([row for row in rows if row["metric"] == metric] for metric in metrics)
    cells = []
    for loss, score, interval in sorted(zip(losses, scores, intervals, strict=True), key=lambda own: own[0]["value"]):
        members = loss["members"]
        name = members[0] if len(members) == 1 else f"{len(members)} members" if members else "base"
        told = f"{interval.low:.3f} to {interval.high:.3f}"
        cells.append((name, loss["group"], loss["value"], told, score["value"], loss["how"]))
    loss_name, metric = (name.replace("_", " ") for name in metrics)
    show_table(("point", "group", loss_name, "95 % interval", metric, "how"), cells, title=dataset)
