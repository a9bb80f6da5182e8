"""says which of two groups of models has the lower generalised loss on a dataset, and stops as soon as that is sure.

Groups: member (of the store, or of --datasets and --families), interior (points of their convex hull) and exterior (the
other members of the store). Members that saw the dataset, or one that shares texts with it, are in neither."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from absl import flags

from wsr.cli import dataset_flags, device_flags

if TYPE_CHECKING:
    from wsr.engine.early import EarlyAnswer, Look

GROUPS = ("member", "interior", "exterior")


def define(values: flags.FlagValues) -> None:
    """Defines the verb's flags."""
    dataset_flags.define(values)
    flags.DEFINE_string("store", None, "The store.", flag_values=values)
    flags.DEFINE_string("on", None, "The dataset to score on: a name, a file, a folder.", flag_values=values)
    flags.DEFINE_list("groups", ["interior", "member"], "The two groups.", flag_values=values)
    flags.DEFINE_list("datasets", [], "Of member and interior: only these datasets.", flag_values=values)
    flags.DEFINE_list("families", [], "Of member and interior: only these families.", flag_values=values)
    flags.DEFINE_integer("interior", 30, "Points drawn from the convex hull.", lower_bound=1, flag_values=values)
    flags.DEFINE_float("until_confidence", 0.95, "How sure the answer has to be.", flag_values=values)
    flags.DEFINE_integer("probe_size", 300, "Texts the probe is fitted on; 0: all.", flag_values=values)
    flags.DEFINE_integer("test_size", 300, "Texts the loss is taken on at most; 0: all.", flag_values=values)
    device_flags.define_engine(values)
    flags.DEFINE_integer("seed", 0, "Of the points drawn and of the order.", flag_values=values)


def run(values: flags.FlagValues, positional: Sequence[str]) -> None:
    """Compares and says what was saved."""

    from wsr.cli.checks import one_of, refuse_positional, required
    from wsr.engine.early import Group, compare
    from wsr.errors import WsrError
    from wsr.geometry.sampling import convex_hull, corners
    from wsr.region.learned import learned_region
    from wsr.runtime import seeds
    from wsr.runtime.compilation import use_persistent_cache
    from wsr.store import Store

    refuse_positional(positional)
    required("--store", values.store)
    required("--on", values.on)
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
    others = region.without_dataset(dataset.name)
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
        "member": Group(inside, corners(len(inside))),
        "interior": Group(inside, between),
        "exterior": Group(outside, corners(len(outside))),
    }
    first, second = (groups[name] for name in values.groups)
    print(f"is {values.groups[0]} better than {values.groups[1]} on {dataset.name}?", flush=True)
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


def _tell(look: "Look") -> None:
    size = look.size
    print(
        f"{size.models_a} and {size.models_b} models on {size.texts} texts: "
        f"P_B {look.probability:.3f} ({look.low:.3f} to {look.high:.3f})",
        flush=True,
    )


def _told(answer: "EarlyAnswer", first: str, second: str) -> str:
    last = answer.looks[-1]
    verdict = {
        "a": f"yes: {first} is better, at a confidence of {answer.confidence:g}",
        "b": f"no: {second} is better, at a confidence of {answer.confidence:g}",
        None: f"not decided at a confidence of {answer.confidence:g} by all models and texts",
    }[last.better]
    cost = (
        f"{answer.texts_needed:,} of {answer.texts_in_full:,} forward passes over a text were needed, "
        f"{100 * answer.saved:.0f} % saved; {answer.seconds:.0f} s"
    )
    if answer.texts_read == answer.texts_needed:
        cost += f" of about {answer.seconds / (1 - answer.saved):.0f}"
    return f"{verdict}\n{cost}"
