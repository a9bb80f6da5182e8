"""``wsr explore``: a page in which a reader walks through a population."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from wsr.cli import dataset_flags, device_flags
from wsr.cli.flags import Flag, Group, Page, Values

if TYPE_CHECKING:
    from wsr.engine.hull_polynomial import HullPolynomial
    from wsr.engine.settings import Settings
    from wsr.region.exposure import Target
    from wsr.region.region import Region
    from wsr.store import Store


MEMBERS = Flag("members", "Members between which to look, at least two.", (), otherwise="all members")
POINTS = Flag(
    "points",
    "Largest number of points scored exactly on each dataset. More points allow polynomials of a higher degree and "
    "narrower bounds.",
    250,
    at_least=1,
)
INVERSE_L2 = Flag(
    "inverse_l2",
    "Inverse of the L2 penalty (C) of all linear probes, on the features as they are.",
    kind=float,
    value="C",
    at_least=0.0,
    otherwise="chosen once for each dataset, by cross-validation at the centroid",
)
LOSS = Flag(
    "loss",
    "Score: generalised is the loss of a new linear probe on the frozen encoder; language_model is a decoder's own "
    "loss and perplexity on plain texts; choices is a decoder's loss and accuracy on questions with several answers, "
    "and on preferences.",
    "generalised",
    allowed=("generalised", "language_model", "choices"),
)
PAGE = Page(
    "wsr explore",
    "wsr explore --store=STORE --on=DATASET,... [options]",
    "Write one offline HTML page in which you drag a point through the population and see its loss and score on "
    "datasets, with a bound on the error.",
    (
        "wsr explore --store=runs/mine --on=made_up_a2 --max_length=48 --out=runs/explorer.html",
        "wsr explore --store=runs/mine --on=made_up_a2,made_up_c1 --max_length=48 --points=90 --test_size=60 "
        "--out=runs/two.html",
    ),
    (
        Group(
            "What is explored",
            (
                Flag("store", "Folder or URL of the store that holds the members.", required=True),
                Flag("on", "Datasets to score on: names, files or folders.", (), value="DATASET,...", required=True),
                MEMBERS,
                dataset_flags.ALLOW_OVERLAP,
            ),
        ),
        Group(
            "How it is scored",
            (
                LOSS,
                POINTS,
                Flag("probe_size", "Number of texts on which the probe is fitted; 0 for all.", 300),
                Flag("test_size", "Number of texts on which the loss is measured; 0 for all.", 300),
                INVERSE_L2,
                dataset_flags.BETWEEN,
                Flag("seed", "Seed of the held-out points and of the map.", 0),
            ),
        ),
        dataset_flags.GROUP,
        device_flags.GROUP,
        Group(
            "Output",
            (Flag("out", "Page to write.", value="FILE", otherwise="runs/explore-NAME.html, for the store's name"),),
        ),
    ),
    (
        "Finished points are kept in the store's folder: after an interruption, the same command resumes.",
        "Under --loss=language_model and --loss=choices no probe is fitted. --test_size counts texts or questions.",
        "docs/explore.md explains the page, its bounds and its limits.",
    ),
)


def run(values: Values, positional: Sequence[str]) -> None:
    """Scores the points and writes the page."""
    from dataclasses import replace
    from pathlib import Path

    from wsr.region.learned import learned_region
    from wsr.report.explorer.explore import explore
    from wsr.runtime.compilation import use_persistent_cache
    from wsr.store import Store

    use_persistent_cache()
    store = Store.open(values.store)
    region = chosen_members(values, learned_region(store))
    datasets = load_all(values, store, region, ("probe", "test"))
    out = Path(values.out) if values.out else Path("runs") / f"explore-{Path(values.store).name}.html"
    with scoring(values, len(region)) as settings:
        found = explore(
            region,
            datasets,
            out,
            points=values.points,
            inverse_l2=values.inverse_l2,
            seed=values.seed,
            settings=replace(settings, results=store.results()),
        )
    _show(found)
    print(f"page: {out} ({out.stat().st_size / 1e6:.1f} MB)")


def chosen_members(values: Values, region: "Region") -> "Region":
    """Returns the region of the members that --members names."""
    from wsr.cli.checks import one_of

    for name in values.members:
        one_of("--members", name, region.names)
    return region.where(lambda member: member.name in values.members) if values.members else region


def load_all(values: Values, store: "Store", region: "Region", splits: Sequence[str]) -> "list[Target]":
    """Returns what --on names, as --loss needs it; refuses members that were fine-tuned on texts of the splits."""
    from dataclasses import replace

    from wsr.data.names import spoken_names
    from wsr.region.exposure import refuse_leaks

    sizes = {split: values[f"{split}_size"].value for split in splits}
    datasets = []
    for given, name in zip(values.on, spoken_names(values.on), strict=True):
        datasets.append(replace(_loaded(values, store, given, sizes), name=name))
        refuse_leaks(region, datasets[-1], splits, allow_overlap=values.allow_overlap)
    return datasets


def _loaded(values: Values, store: "Store", given: str, sizes: Mapping[str, int]) -> "Target":
    processor = store.processor()
    if values.loss == "generalised":
        kept = {split: size for split, size in sizes.items() if size}
        return dataset_flags.load(values, given, processor, sizes=kept)
    scored = [size for split, size in sizes.items() if split != "probe"]  # decoders need no probe
    size = sum(scored) if all(scored) else None
    if values.loss == "language_model":
        return dataset_flags.load_texts(values, given, processor, size=size)
    encoder_decoder = store.model.encoder_decoder
    return dataset_flags.load_choices(values, given, processor, encoder_decoder=encoder_decoder, size=size)


@contextmanager
def scoring(values: Values, members: int) -> "Iterator[Settings]":
    """Gives the settings of the flags, with a counter of the points scored for polynomials on all datasets."""
    from wsr.engine.hull_polynomial import design_of
    from wsr.runtime.progress import progress

    points = len(design_of(members, points=values.points, seed=values.seed).points)
    with progress("scoring", len(values.on) * points, "points") as counter:
        yield device_flags.settings_of(values, counter=counter)


def _show(found: "Sequence[HullPolynomial]") -> None:
    from wsr.cli.tables import show_table

    rows: list[tuple[str | int, ...]] = []
    for own in found:
        errors = (f"{own.check.error:.5f}", f"{own.check.largest:.5f}")
        penalty = [f"{own.protocol.inverse_l2:g}"] if own.protocol else []
        rows.append((own.dataset.name, len(own.exact_losses), *penalty, own.check.degree, *errors))
    penalties = ("C",) if found[0].protocol else ()
    columns = ("dataset", "scored points", *penalties, "degree", "mean error", "largest error")
    show_table(columns, rows, title="Polynomials of the losses, at held-out points")
