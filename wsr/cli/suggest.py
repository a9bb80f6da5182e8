"""says which member, centroid or base of a store is the best start for fine-tuning on data of one's own, which others
cannot be told from it, and the commands that go on from there: wsr suggest --store=S --data=FILE.csv."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from absl import flags

from wsr.cli import dataset_flags, device_flags

if TYPE_CHECKING:
    from wsr.engine.suggest import Start, Suggestion
    from wsr.region.region import Region
    from wsr.store import Store

FEW_TEXTS = 100


def define(values: flags.FlagValues) -> None:
    """Defines the verb's flags."""
    dataset_flags.define(values)
    flags.DEFINE_string("store", None, "The store.", flag_values=values)
    flags.DEFINE_string("data", None, "Labelled texts: a file, a folder, a name.", flag_values=values)
    flags.DEFINE_integer("texts", 400, "At most so many of them are used.", lower_bound=20, flag_values=values)
    flags.DEFINE_float("confidence", 0.95, "That the best start is among those named.", flag_values=values)
    flags.DEFINE_string("to", None, "Folder the start would be exported to, for the commands.", flag_values=values)
    device_flags.define_engine(values)
    flags.DEFINE_integer("seed", 0, "Of the texts drawn.", flag_values=values)


def run(values: flags.FlagValues, positional: Sequence[str]) -> None:
    """Scores all starts, prints them and the commands."""

    from wsr.cli.checks import refuse_positional, required
    from wsr.engine.suggest import suggest
    from wsr.errors import WsrError
    from wsr.region.learned import learned_region
    from wsr.runtime.compilation import use_persistent_cache
    from wsr.store import Store

    refuse_positional(positional)
    required("--store", values.store)
    required("--data", values.data)
    if not 0.5 <= values.confidence < 1:
        raise WsrError(f"--confidence={values.confidence:g}: expected at least 0.5 and less than 1")
    use_persistent_cache()
    store = Store.open(values.store)
    region = learned_region(store)
    if not len(region):
        raise WsrError(f"{values.store} has no members yet: the base is the only start there is")
    dataset = dataset_flags.load(values, values.data, store.checkpoint().processor)
    others = region.without_dataset(dataset.name)
    if len(others) < len(region):
        print(f"left out, trained on {dataset.name} or its texts: {len(region) - len(others)} members", flush=True)
    found = suggest(
        others,
        dataset,
        texts=values.texts,
        confidence=values.confidence,
        settings=device_flags.settings_of(values, results=store.results()),
        seed=values.seed,
    )
    _show(found, dataset.metric)
    print("\n" + "\n".join(_commands(values, store, others, found.best.start)))


def _show(found: "Suggestion", metric: str) -> None:
    from wsr.cli.tables import show_table

    rows = [
        (own.start.name, own.loss, own.metric, own.worse, own.low, own.high, "" if own.named else "worse")
        for own in found.scored
    ]
    columns = ("start", "probe loss", metric, "above the best", "low", "high", "surely")
    show_table(columns, rows, title=f"{found.texts} texts")
    if found.dropped:
        print(f"surely worse on a quarter of the texts: {', '.join(found.dropped)}")
    names = [own.start.name for own in found.named]
    print(f"\nthe lowest loss: {names[0]}")
    if len(names) == 1:
        print(f"surely the best of all, at a confidence of {found.confidence:g}")
    else:
        print(f"cannot be told from it, at a confidence of {found.confidence:g}: {', '.join(names[1:])}")
    if "base" in names[1:]:
        print("the base is among them: on these texts no start is surely better than none")
    if found.texts < FEW_TEXTS:
        print(
            f"with {found.texts} texts only large differences show; take the lowest loss for a guess, or label more "
            "(docs/check.md)"
        )


def _commands(values: flags.FlagValues, store: "Store", region: "Region", start: "Start") -> list[str]:
    """What exports the start, where it is not the base itself, and what fine-tunes from it."""
    import shlex
    from pathlib import Path

    slug = start.name.replace(" ", "-")
    folder = values.to or str(Path("runs") / f"start-{slug}")
    commands = []
    if start.coefficients.any():
        commands.append(["wsr", "export", _point(region, start), f"--store={values.store}", f"--to={folder}"])
    base = folder if start.coefficients.any() else store.base_name
    flags_of_data = [
        values[name].serialize()
        for name in ("text_column", "pair_column", "label_column", "family", "regression", "max_length")
        if values[name].present
    ]
    commands.append(
        [
            *("wsr", "train", f"--store=runs/from-{slug}", f"--base={base}"),
            *(f"--pooling={store.model_config['pooling']}",) * ("pooling" in store.model_config),
            f"--datasets={values.data}",
            *flags_of_data,
            *_recipe(store, region),
        ]
    )
    return [shlex.join(words) for words in commands]


def _point(region: "Region", start: "Start") -> str:
    names = [(name, float(own)) for name, own in zip(region.names, start.coefficients, strict=True) if own]
    return names[0][0] if len(names) == 1 else ",".join(f"{name}={own!r}" for name, own in names)


def _recipe(store: "Store", region: "Region") -> list[str]:
    """How most of the members were trained, where that is known."""
    from collections import Counter

    found = []
    records = [store.record(name).hyperparameters for name in region.names]
    for name in ("learning_rate", "batch_size", "epochs"):
        known = Counter(own[name] for own in records if name in own)
        if known:
            found.append(f"--{name}={known.most_common(1)[0][0]}")
    return found
