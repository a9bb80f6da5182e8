"""``wsr compare``: which of two groups of models is better on a dataset."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from wsr.cli import dataset_flags, device_flags
from wsr.cli.flags import Flag, Group, Page, Values

if TYPE_CHECKING:
    from wsr.engine.early import EarlyAnswer, Look
    from wsr.engine.early import Group as Models

GROUPS = ("member", "interior", "exterior")


PAGE = Page(
    "wsr compare",
    "wsr compare --store=STORE --on=DATASET [options]",
    "Test which of two groups of models has the lower generalised loss on a dataset, and stop as soon as the answer is "
    "certain enough.",
    (
        "wsr compare --store=runs/mine --on=made_up_a2 --max_length=48 --probe_size=40 --test_size=60",
        "wsr compare --store=runs/mine --on=made_up_a2 --max_length=48 --groups=interior,member --interior=8 "
        "--probe_size=40 --test_size=60 --until_confidence=0.8",
    ),
    (
        Group(
            "What is compared",
            (
                Flag("store", "Folder or URL of the store that holds the members.", required=True),
                Flag("on", "Dataset to score on: a name, a file or a folder.", value="DATASET", required=True),
                Flag(
                    "groups",
                    "The two groups: member is the members chosen below, interior is points drawn from their convex "
                    "hull, exterior is the other members of the store.",
                    ("interior", "member"),
                    value="A,B",
                    accepts="two of member, interior and exterior",
                ),
                Flag("interior", "Number of points drawn from the convex hull.", 30, at_least=1),
                Flag(
                    "datasets",
                    "Datasets whose members form the group member.",
                    (),
                    otherwise="all",
                ),
                Flag("families", "Families whose members form the group member.", (), otherwise="all"),
                Flag(
                    "until_confidence",
                    "Confidence at which the comparison stops.",
                    0.95,
                    accepts="number between 0 and 1",
                ),
                *dataset_flags.OVERLAP_FLAGS,
                Flag("seed", "Seed of the points drawn and of the order in which models and texts are read.", 0),
            ),
        ),
        Group(
            "Texts",
            (
                Flag("probe_size", "Number of texts on which the probe is fitted; 0 for all.", 300),
                Flag("test_size", "Largest number of texts on which the loss is measured; 0 for all.", 300),
            ),
        ),
        dataset_flags.GROUP,
        device_flags.GROUP,
    ),
)


def run(values: Values, positional: Sequence[str]) -> None:
    """Compares two groups; prints the answer and how many forward passes it took."""
    from wsr.cli.checks import one_of
    from wsr.engine.early import Group as Models
    from wsr.engine.early import compare
    from wsr.errors import WsrError
    from wsr.geometry.sampling import convex_hull, corners
    from wsr.region.exposure import unexposed
    from wsr.region.learned import learned_region
    from wsr.runtime import seeds
    from wsr.runtime.compilation import use_persistent_cache
    from wsr.store import Store

    for name in values.groups:
        one_of("--groups", name, GROUPS)
    if len(set(values.groups)) != 2:
        raise WsrError(f"--groups={','.join(values.groups)}: expected two different ones of {', '.join(GROUPS)}")
    use_persistent_cache()
    store = Store.open(values.store)
    region = learned_region(store)
    for flag, wanted, present in (
        ("--datasets", values.datasets, region.datasets),
        ("--families", values.families, region.families),
    ):
        for name in wanted:
            one_of(flag, name, sorted(set(present)))
    sizes = {split: size for split, size in (("probe", values.probe_size), ("test", values.test_size)) if size}
    dataset = dataset_flags.load(values, values.on, store.checkpoint().processor, sizes=sizes)
    _, others = unexposed(region, dataset, leave_out=values.leave_out, allow_overlap=values.allow_overlap)
    inside = others.where(
        lambda member: (
            (not values.datasets or member.dataset in values.datasets)
            and (not values.families or member.family in values.families)
        )
    )
    outside = others.where(lambda member: member.name not in inside.names)
    draw = seeds.generator(values.seed, "early answer", dataset.name)
    between = convex_hull(draw, values.interior, len(inside)) if len(inside) > 1 else corners(len(inside))[:0]
    groups = {
        "member": Models(inside, corners(len(inside))),
        "interior": Models(inside, between),
        "exterior": Models(outside, corners(len(outside))),
    }
    first, second = (groups[name] for name in values.groups)
    print(f"is {values.groups[0]} better than {values.groups[1]} on {dataset.name}?", flush=True)
    for name, group in zip(values.groups, (first, second), strict=True):
        print(_sources_told(name, group, values.until_confidence), flush=True)
    answer = compare(
        first,
        second,
        dataset,
        confidence=values.until_confidence,
        settings=device_flags.settings_of(values, results=store.results()),
        generator=draw,
        tell=_tell,
    )
    print(_told(answer, *values.groups))


def _sources_told(name: str, group: "Models", confidence: float) -> str:
    from wsr.engine.early import sources_needed

    sources, needed = group.sources, sources_needed(confidence)
    found = len(sources.names)
    told = f"{name}: {len(group.coefficients)} models from {found} {sources.kind}{'s' * (found != 1)}"
    return told if found >= needed else f"{told}; a confidence of {confidence:g} usually needs at least {needed}"


def _tell(look: "Look") -> None:
    size = look.size
    interval = "cannot say" if look.reason else f"{look.low:.3f} to {look.high:.3f}"
    print(
        f"{size.models_a} and {size.models_b} models on {size.texts} texts: P_B {look.probability:.3f} ({interval})",
        flush=True,
    )


def _told(answer: "EarlyAnswer", first: str, second: str) -> str:
    last = answer.looks[-1]
    verdict = {
        "a": f"yes: {first} is better, with confidence {answer.confidence:g}",
        "b": f"no: {second} is better, with confidence {answer.confidence:g}",
        None: f"not decided: all models and texts do not reach a confidence of {answer.confidence:g}",
    }[last.better]
    if last.reason:
        verdict = f"cannot say: {last.reason.replace('group a', first).replace('group b', second)}"
    cost = (
        f"it took {answer.texts_needed:,} of {answer.texts_in_full:,} forward passes over a text "
        f"({100 * answer.saved:.0f} % saved) and {answer.seconds:.0f} s"
    )
    if answer.texts_read == answer.texts_needed:
        cost += f"; all of them would take about {answer.seconds / (1 - answer.saved):.0f} s"
    return f"{verdict}\n{cost}"
