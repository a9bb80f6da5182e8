"""scores members of a store, their centroid, points between them and models merged from them on a dataset: the
generalised loss (a fresh linear probe on the frozen encoder) with its 95 % interval over texts, and the dataset's own
metric. Finished points are kept in the store's folder.

--distributed, given to the same command on several hosts, deals the points to all of their devices; the hosts share the
store's file system. docs/several_hosts.md tells more.

--loss=language_model takes a decoder's own loss instead, and its perplexity. No labels are needed: a .txt file holds a
text a line, a folder of them a text a file. A text of more than --max_length tokens goes on in another window."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from absl import flags

from wsr.cli import dataset_flags, device_flags, host_flags

if TYPE_CHECKING:
    import numpy as np

    from wsr.data.dataset import AnySplit
    from wsr.engine.evaluate import Protocol
    from wsr.models import Checkpoint
    from wsr.region.region import Region
    from wsr.statistics.compare import Interval


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


Request: TypeAlias = "tuple[Callable[..., Any], Region, dict[str, np.ndarray]]"
"""What scores, in which region, coefficients of the points by group."""


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
    device_flags.define(values, "Results")
    host_flags.define(values)
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
    from wsr.cli.checks import one_of, refuse_positional, required
    from wsr.engine.probe import PROBES
    from wsr.errors import WsrError

    refuse_positional(positional)
    required("--store", values.store)
    required("--on", values.on)
    one_of("--probe", values.probe, PROBES)
    if values.loss != "generalised" and values.surrogate_tolerance is not None:
        raise WsrError("--surrogate_tolerance is for --loss=generalised: the surrogate is of a probe's features")
    if values.distributed and values.surrogate_tolerance is not None:
        raise WsrError("--surrogate_tolerance takes few forward passes, in one process; leave out --distributed")
    with host_flags.coupled(values, values.store) as reports:
        _evaluate(values, reports)


def _evaluate(values: flags.FlagValues, reports: bool) -> None:
    from dataclasses import replace
    from functools import partial
    from pathlib import Path

    import numpy as np

    from wsr.engine.evaluate import Protocol
    from wsr.engine.region_features import plan_features
    from wsr.engine.surrogate import evaluate_hull
    from wsr.exchange.scores import keep_scores
    from wsr.geometry.sampling import centroid, convex_hull, corners
    from wsr.region.learned import learned_region
    from wsr.runtime import seeds
    from wsr.runtime.compilation import use_persistent_cache
    from wsr.runtime.hosts import deal
    from wsr.runtime.progress import progress
    from wsr.statistics.compare import mean_interval
    from wsr.store import Store
    from wsr.store.results import write_rows

    use_persistent_cache()
    store = Store.open(values.store)
    region = learned_region(store)
    base = store.checkpoint()
    tokenizer = base.processor
    protocol = Protocol(probe=values.probe, inverse_l2=values.inverse_l2)
    settings = device_flags.settings_of(values, results=store.results())
    merged = [_merged(base, region, folder) for folder in values.merged]
    rows: list[dict] = []
    for name in values.on:
        target = TARGETS[values.loss](values, name, tokenizer, region, protocol)
        dataset = target.dataset
        others = region.without_dataset(dataset.name) if values.leave_out else region
        columns = [region.names.index(name) for name in others.names]
        draw = seeds.generator(values.seed, "hull", dataset.name)
        groups = {
            "pretrained": np.zeros((1, len(region))),
            "member": corners(len(region)),
            "centroid": _widened(centroid(len(others))[None], columns, len(region)),
        }
        # Points of one region together: no device waits for more.
        requests: list[Request] = [(target.evaluate, region, groups)]
        if len(others) > 1 and values.interior:
            interior = {"interior": _widened(convex_hull(draw, values.interior, len(others)), columns, len(region))}
            if values.surrogate_tolerance is not None:
                requests.append(
                    (partial(evaluate_hull, tolerance=values.surrogate_tolerance, protocol=protocol), region, interior)
                )
            else:
                groups |= interior
        requests += [(target.evaluate, alone, {"merged": corners(1)}) for alone in merged]
        total = sum(len(own) for _, _, groups in requests for own in groups.values())
        share = deal(total)
        plan = plan_features(
            target.planned,
            np.tile(centroid(len(region)), (-(-total // share.groups), 1)),
            target.splits,
            settings=replace(settings, mesh=share.mesh),
        )
        several = f" dealt to {share.groups} processes" if share.groups > 1 else ""
        print(f"{dataset.name}: {total} points{several}, {plan}", flush=True)
        found: list[dict] = []
        intervals: list[Interval] = []
        with progress(f"evaluating on {dataset.name}", total, "points") as counter:
            for score, part, groups in requests:
                scored = score(
                    part,
                    np.concatenate(list(groups.values())),
                    dataset,
                    settings=replace(settings, chunk=plan.chunk, memory_budget_gib=plan.budget_gib, counter=counter),
                )
                names = [group for group, own in groups.items() for _ in own for _ in target.metrics]
                found += [{**row, "group": group} for group, row in zip(names, scored.rows(""), strict=True)]
                intervals += [mean_interval(losses) for losses in target.by_text(scored)]
        _show(dataset.name, target.metrics, found, intervals)
        rows += found
    if not reports:
        return
    keep_scores(store, [row for row in rows if row["group"] != "merged"])
    if values.out:
        write_rows(Path(values.out), rows)
        print(f"rows: {values.out}")


def _widened(rows: "np.ndarray", columns: Sequence[int], members: int) -> "np.ndarray":
    """Coefficients over some members as coefficients over all of them."""
    import numpy as np

    wide = np.zeros((len(rows), members))
    wide[:, columns] = rows
    return wide


def _generalised(values: flags.FlagValues, name: str, tokenizer: Any, region: "Region", protocol: "Protocol") -> Target:
    from functools import partial

    from wsr.engine.evaluate import evaluate

    sizes = {split: size for split, size in (("probe", values.probe_size), ("test", values.test_size)) if size}
    dataset = dataset_flags.load(values, name, tokenizer, sizes=sizes)
    splits = {split: dataset.splits[split] for split in ("probe", "test")}
    metrics = ("generalised_loss", dataset.metric)
    return Target(dataset, splits, region, partial(evaluate, protocol=protocol), lambda found: found.losses, metrics)


def _language_model(
    values: flags.FlagValues, name: str, tokenizer: Any, region: "Region", protocol: "Protocol"
) -> Target:
    from wsr.engine.language_model import METRICS, evaluate_language_model, with_losses

    texts = dataset_flags.load_texts(values, name, tokenizer, size=values.test_size or None)
    for note in texts.notes:
        print(note)
    splits, planned = {"texts": texts.windows}, with_losses(region)
    return Target(texts, splits, planned, evaluate_language_model, lambda found: found.by_text, METRICS)


TARGETS = {"generalised": _generalised, "language_model": _language_model}


def _merged(base: "Checkpoint", region: "Region", folder: str) -> "Region":
    """A merged model as a region of its own."""
    from pathlib import Path

    from wsr.errors import WsrError
    from wsr.exchange.member import read_member, require_base
    from wsr.region.region import from_params

    if not Path(folder).is_dir():
        raise WsrError(f"--merged={folder}: no such folder; give one that wsr merge wrote")
    found = read_member(Path(folder), base)
    require_base(found)
    return from_params(region.model, region.base, {Path(folder).name: found.params})


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
