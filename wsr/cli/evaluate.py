"""``wsr evaluate``: the scores of points of a population on datasets."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from wsr.cli import dataset_flags, device_flags, host_flags
from wsr.cli.flags import Flag, Group, Page, Values

if TYPE_CHECKING:
    import numpy as np

    from wsr.data.dataset import AnySplit
    from wsr.engine.evaluate import Protocol
    from wsr.models import Checkpoint
    from wsr.region.region import Region
    from wsr.statistics.interval import Interval
    from wsr.store import MemberRecord


class Target(NamedTuple):
    """What points are scored on, and how."""

    dataset: Any
    splits: "Mapping[str, AnySplit]"
    """What is read."""
    reader: "Callable[[Region], Region]"
    """The region that reads it, given the region that is scored."""
    evaluate: Callable[..., Any]


Request: TypeAlias = "tuple[Callable[..., Any], Region, dict[str, np.ndarray]]"
"""What scores, in which region, coefficients of the points by group."""


LOSSES = ("generalised", "language_model", "choices", "zero_shot")
PAGE = Page(
    "wsr evaluate",
    "wsr evaluate --store=STORE --on=DATASET,... [options]",
    "Score the members of a store, their centroid, points drawn from their convex hull and merged models on datasets.",
    (
        "wsr evaluate --store=runs/mine --on=made_up_a2 --max_length=48 --probe_size=60 --test_size=60",
        "wsr evaluate --store=runs/mine --on=made_up_a2 --max_length=48 --probe_size=60 --test_size=60 --interior=50 "
        "--surrogate_tolerance=0.05 --out=runs/rows.jsonl",
    ),
    (
        Group(
            "What is evaluated",
            (
                Flag("store", "Folder or URL of the store that holds the members.", required=True),
                Flag(
                    "on",
                    "Datasets to score on: names, files or folders.",
                    (),
                    value="DATASET,...",
                    required=True,
                ),
                Flag("interior", "Number of points drawn from the convex hull.", 4, at_least=0),
                Flag("merged", "Folders written by wsr merge whose models are scored too.", (), value="FOLDER,..."),
                *dataset_flags.OVERLAP_FLAGS,
                Flag("seed", "Seed of the points drawn from the hull.", 0),
            ),
        ),
        Group(
            "How it is scored",
            (
                Flag(
                    "loss",
                    "Score: generalised is the loss of a new linear probe on the frozen encoder, next to the dataset's "
                    "own metric; language_model is a decoder's own loss and perplexity, and needs no labels; choices "
                    "is a decoder's loss and accuracy on questions with several answers, and on preferences; zero_shot "
                    "is the loss of a CLIP or SigLIP whose text tower makes a head of the names of the classes.",
                    "generalised",
                    allowed=LOSSES,
                ),
                Flag("probe_size", "Number of texts on which the probe is fitted; 0 for all.", 300),
                Flag("test_size", "Number of texts on which the loss is measured; 0 for all.", 300),
                Flag(
                    "probe",
                    "Classifier fitted on the features.",
                    "linear",
                    accepts="linear or roberta_head",
                ),
                Flag(
                    "inverse_l2",
                    "Inverse of the L2 penalty (C) of the linear probe, on the features as they are.",
                    kind=float,
                    value="C",
                    at_least=0.0,
                    otherwise="chosen for each point by cross-validation, on standardised features",
                ),
                Flag(
                    "draws",
                    "Number of disjoint parts of the probe texts; a probe is fitted on each, and a loss is the mean.",
                    1,
                    at_least=1,
                ),
                dataset_flags.BETWEEN,
                Flag(
                    "templates",
                    "Prompt of a class under --loss=zero_shot, with {} where its name stands, or a text file with one "
                    "prompt on each line.",
                    "a photo of a {}.",
                    value="TEXT",
                ),
                Flag(
                    "surrogate_tolerance",
                    "Score a point of the hull by a surrogate if the bound on its error is at most this tolerance, "
                    "and exactly otherwise. The rows state the bounds.",
                    kind=float,
                    value="ERROR",
                    at_least=0.0,
                    otherwise="no surrogate",
                ),
            ),
        ),
        dataset_flags.GROUP,
        device_flags.GROUP,
        host_flags.GROUP,
        Group("Output", (Flag("out", "JSONL file to which the rows are written.", value="FILE"),)),
    ),
    (
        "The table shows each loss with its 95 % interval over texts. Finished points are kept in the store's folder "
        "and are not evaluated again.",
        "Under --loss=language_model a .txt file holds one text per line and a folder of .txt files one text per file. "
        "A text longer than --max_length tokens continues in further windows.",
        "Under --loss=choices a row of the file holds a question, a list of answers and the right one, or a prompt, a "
        "chosen and a rejected answer. A question longer than --max_length tokens is cut from the left.",
        "docs/several_hosts.md explains --distributed.",
    ),
)


def run(values: Values, positional: Sequence[str]) -> None:
    """Evaluates and prints a table, best first."""
    from wsr.cli.checks import one_of
    from wsr.engine.probe import PROBES
    from wsr.errors import WsrError

    one_of("--probe", values.probe, PROBES)
    if values.loss == "zero_shot" and values.surrogate_tolerance is not None:
        raise WsrError("--surrogate_tolerance is not for --loss=zero_shot; expected another loss")
    if values.distributed and values.surrogate_tolerance is not None:
        raise WsrError(
            "--surrogate_tolerance runs in one process, because it takes few forward passes; leave out --distributed"
        )
    with host_flags.coupled(values, values.store) as reports:
        _evaluate(values, reports)


def _evaluate(values: Values, reports: bool) -> None:
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
    from wsr.statistics.interval import mean_interval
    from wsr.store import Store
    from wsr.store.results import write_rows

    use_persistent_cache()
    store = Store.open(values.store)
    population = learned_region(store)
    base = store.checkpoint()
    protocol = Protocol(probe=values.probe, inverse_l2=values.inverse_l2, draws=values.draws)
    settings = device_flags.settings_of(values, results=store.results())
    merged = [_merged(base, population, folder) for folder in values.merged]
    rows: list[dict] = []
    prepared = _prepared(values, base, protocol, population, store.records())
    for target, dataset, region, others in prepared:
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
                options = {"protocol": protocol} if values.loss == "generalised" else {}
                surrogate = partial(evaluate_hull, tolerance=values.surrogate_tolerance, **options)
                requests.append((surrogate, region, interior))
            else:
                groups |= interior
        requests += [(target.evaluate, alone, {"merged": corners(1)}) for alone in merged]
        total = sum(len(own) for _, _, groups in requests for own in groups.values())
        share = deal(total)
        plan = plan_features(
            target.reader(region),
            np.tile(centroid(len(region)), (-(-total // share.groups), 1)),
            target.splits,
            settings=replace(settings, mesh=share.mesh),
        )
        several = f" divided among {share.groups} processes" if share.groups > 1 else ""
        print(f"{dataset.name}: {total} points{several}, {plan}", flush=True)
        found: list[dict] = []
        intervals: list[Interval] = []
        penalties: list[str] = []
        unseen = dataset.unseen_by_probe() if values.loss == "generalised" else np.zeros(1, bool)
        on_seen: list[float] = []
        with progress(f"evaluating on {dataset.name}", total, "points") as counter:
            for score, part, groups in requests:
                scored = score(
                    part,
                    np.concatenate(list(groups.values())),
                    dataset,
                    settings=replace(settings, chunk=plan.chunk, memory_budget_gib=plan.budget_gib, counter=counter),
                )
                metrics = tuple(scored.values)
                names = [group for group, own in groups.items() for _ in own for _ in metrics]
                found += [{**row, "group": group} for group, row in zip(names, scored.rows(""), strict=True)]
                intervals += [mean_interval(losses) for losses in scored.by_text]
                penalties += [told] if (told := getattr(scored, "penalties", "")) else []
                if unseen.any() and not unseen.all():
                    on_seen += scored.by_text[:, ~unseen].mean(axis=1).tolist()
        _show(dataset.name, metrics, found, intervals, on_seen)
        if values.loss == "generalised":
            print("; ".join([f"probe: {protocol.told}", *penalties]))
        if on_seen:
            print(
                f"the probe never saw the classes of {unseen.sum()} of {len(unseen)} test texts; the loss on seen "
                "classes leaves these texts out"
            )
        rows += found
    if not reports:
        return
    keep_scores(store, [row for row in rows if row["group"] != "merged"])
    if values.out:
        write_rows(Path(values.out), rows)
        print(f"rows: {values.out}")


def _prepared(
    values: Values,
    base: "Checkpoint",
    protocol: "Protocol",
    population: "Region",
    records: "Sequence[MemberRecord]",
) -> list[tuple[Target, Any, "Region", "Region"]]:
    """Returns each dataset with the members that may be scored on it and those that never saw it.

    All datasets are read before the first is scored, so that one that cannot be scored is refused before any work.
    """
    from dataclasses import replace

    from wsr.data.names import spoken_names
    from wsr.region.exposure import unexposed

    prepared = []
    for given, name in zip(values.on, spoken_names(values.on), strict=True):
        target = TARGETS[values.loss](values, given, base, protocol)
        dataset = replace(target.dataset, name=name)
        dataset = replace(dataset, name=dataset_flags.spoken_apart(dataset, given, records))
        region, others = unexposed(
            population,
            dataset,
            leave_out=values.leave_out,
            allow_overlap=values.allow_overlap,
            out_of="hull and centroid",
        )
        prepared.append((target, dataset, region, others))
    return prepared


def _widened(rows: "np.ndarray", columns: Sequence[int], members: int) -> "np.ndarray":
    """Coefficients over some members as coefficients over all of them."""
    import numpy as np

    wide = np.zeros((len(rows), members))
    wide[:, columns] = rows
    return wide


def _generalised(values: Values, name: str, base: "Checkpoint", protocol: "Protocol") -> Target:
    from functools import partial

    from wsr.engine.evaluate import evaluate

    sizes = {split: size for split, size in (("probe", values.probe_size), ("test", values.test_size)) if size}
    dataset = dataset_flags.load(values, name, base.processor, sizes=sizes)
    splits = {split: dataset.splits[split] for split in ("probe", "test")}
    return Target(dataset, splits, lambda region: region, partial(evaluate, protocol=protocol))


def _language_model(values: Values, name: str, base: "Checkpoint", protocol: "Protocol") -> Target:
    from wsr.engine.language_model import evaluate_language_model, with_losses

    texts = dataset_flags.load_texts(values, name, base.processor, size=values.test_size or None)
    return Target(texts, {"texts": texts.windows}, with_losses, evaluate_language_model)


def _choices(values: Values, name: str, base: "Checkpoint", protocol: "Protocol") -> Target:
    from wsr.engine.choices import evaluate_choices, with_answer_losses

    questions = dataset_flags.load_choices(
        values, name, base.processor, encoder_decoder=base.model.encoder_decoder, size=values.test_size or None
    )
    return Target(questions, {"answers": questions.windows}, with_answer_losses, evaluate_choices)


def _zero_shot(values: Values, name: str, base: "Checkpoint", protocol: "Protocol") -> Target:
    from functools import partial

    from wsr.engine.zero_shot import evaluate_zero_shot, read_templates, with_embeddings, zero_shot_head

    sizes = {"test": values.test_size} if values.test_size else {}
    dataset = dataset_flags.load(values, name, base.processor, sizes=sizes)
    head = zero_shot_head(base, dataset.label_names, read_templates(values.templates))
    scored = partial(evaluate_zero_shot, head=head)
    return Target(dataset, {"test": dataset.splits["test"]}, with_embeddings, scored)


TARGETS = {
    "generalised": _generalised,
    "language_model": _language_model,
    "choices": _choices,
    "zero_shot": _zero_shot,
}


def _merged(base: "Checkpoint", region: "Region", folder: str) -> "Region":
    """A merged model as a region of its own."""
    from pathlib import Path

    from wsr.errors import WsrError
    from wsr.exchange.member import read_member, require_base
    from wsr.region.region import from_params

    if not Path(folder).is_dir():
        raise WsrError(f"--merged={folder}: no such folder; expected a folder written by wsr merge")
    found = read_member(Path(folder), base)
    require_base(found)
    return from_params(region.model, region.base, {Path(folder).name: found.params})


def _show(
    dataset: str,
    metrics: Sequence[str],
    rows: list[dict],
    intervals: Sequence["Interval"],
    on_seen: Sequence[float],
) -> None:
    from wsr.cli.tables import show_table

    losses, *scores = ([row for row in rows if row["metric"] == metric] for metric in metrics)
    cells = []
    for at in sorted(range(len(losses)), key=lambda at: losses[at]["value"]):
        loss, interval, members = losses[at], intervals[at], losses[at]["members"]
        name = members[0] if len(members) == 1 else f"{len(members)} members" if members else "base"
        known = math.isfinite(interval.low) and math.isfinite(interval.high)  # not of a single text
        told = f"{interval.low:.3f} to {interval.high:.3f}" if known else "cannot say"
        seen = (on_seen[at],) if on_seen else ()
        cells.append(
            (name, loss["group"], loss["value"], told, *seen, *(own[at]["value"] for own in scores), loss["how"])
        )
    loss_name, *names = (name.replace("_", " ") for name in metrics)
    more = ("on seen classes",) if on_seen else ()
    show_table(("point", "group", loss_name, "95 % interval", *more, *names, "how"), cells, title=dataset)
