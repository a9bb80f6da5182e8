"""``wsr suggest``: the best start for fine-tuning on new data."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from wsr.cli import dataset_flags, device_flags
from wsr.cli.flags import Flag, Group, Page, Values

if TYPE_CHECKING:
    from wsr.data.dataset import Dataset
    from wsr.engine.suggest import Start, Suggestion
    from wsr.models.model import Model
    from wsr.region.region import Region
    from wsr.store import MemberRecord, Store
    from wsr.training.recipe import Recipe
    from wsr.types import Params

FEW_TEXTS = 100


PAGE = Page(
    "wsr suggest",
    "wsr suggest --store=STORE --data=FILE [options]",
    "Rank the members, centroids and base of a store as starts for fine-tuning on your own labelled texts, and print "
    "the commands that export the best start and train from it.",
    (
        "wsr suggest --store=runs/mine --data=made_up_c1 --max_length=48 --texts=60",
        "wsr suggest --store=runs/mine --data=reviews.csv --text_column=review --label_column=stars --max_length=48",
    ),
    (
        Group(
            "What is compared",
            (
                Flag("store", "Folder or URL of the store that holds the members.", required=True),
                Flag("data", "Labelled texts: a file, a folder or a dataset's name.", required=True),
                Flag("texts", "Largest number of texts used.", 400, at_least=20),
                Flag(
                    "confidence",
                    "Probability that the best start is among those named.",
                    0.95,
                    accepts="number, at least 0.5 and below 1",
                ),
                *dataset_flags.OVERLAP_FLAGS,
                Flag("seed", "Seed of the texts drawn.", 0),
                Flag(
                    "check_recipe",
                    "Train one member from the best start, and give the printed recipe more epochs until it learns.",
                    True,
                ),
            ),
        ),
        dataset_flags.GROUP,
        device_flags.GROUP,
        Group(
            "Output",
            (
                Flag(
                    "to",
                    "Folder to which the printed commands export the start.",
                    value="FOLDER",
                    otherwise="runs/start-NAME",
                ),
            ),
        ),
    ),
)


def run(values: Values, positional: Sequence[str]) -> None:
    """Scores all starts; prints them and the commands that use the best."""
    from wsr.engine.suggest import suggest
    from wsr.errors import WsrError
    from wsr.region.exposure import unexposed
    from wsr.region.learned import learned_region
    from wsr.runtime.compilation import use_persistent_cache
    from wsr.store import Store

    if not 0.5 <= values.confidence < 1:
        raise WsrError(f"--confidence={values.confidence:g}: expected at least 0.5 and less than 1")
    use_persistent_cache()
    store = Store.open(values.store)
    records = store.records()
    if not records:
        raise WsrError(
            f"{values.store} has no members yet, so its base is the only start; add members by wsr train or wsr import"
        )
    checkpoint = store.checkpoint()
    dataset = dataset_flags.load(values, values.data, checkpoint.processor)
    recipe = _recipe_of(records)
    if all(record.mode == "head" for record in records):
        print("only heads were trained, so every member has the base's weights: the base is the only start")
        name, point, params = "base", "", checkpoint.params
    else:
        region = learned_region(store, records)
        _, others = unexposed(
            region, dataset, tuple(dataset.splits), leave_out=values.leave_out, allow_overlap=values.allow_overlap
        )
        found = suggest(
            others,
            dataset,
            texts=values.texts,
            confidence=values.confidence,
            settings=device_flags.settings_of(values, results=store.results()),
            seed=values.seed,
        )
        _show(found, dataset.metric)
        start = found.best.start
        name, params = start.name, others.params(start.coefficients)
        point = _point(others, start) if start.coefficients.any() else ""
    if values.check_recipe:
        recipe = _checked(checkpoint.model, params, dataset, recipe)
    print("\n" + "\n".join(_commands(values, store, point, name, recipe)))


def _checked(model: "Model", params: "Params", dataset: "Dataset", recipe: "Recipe") -> "Recipe":
    """Returns the recipe with enough epochs to learn the data, and says what a member trained with it scored."""
    from wsr.engine.recipe_check import check_recipe

    found = check_recipe(model, params, dataset, recipe)
    print(
        f"\na member trained from it with the recipe below: {dataset.metric} {found.score:.3f} on {found.texts} test "
        f"texts, {found.chance:.3f} by chance"
    )
    if found.recipe.epochs != recipe.epochs:
        print(
            f"with the {recipe.epochs:g} epochs of most members it did no better than chance: {found.recipe.epochs:g} "
            "epochs instead"
        )
    if not found.learned:
        print("this recipe does not learn these texts: raise --learning_rate, or label more texts")
    return found.recipe


def _show(found: "Suggestion", metric: str) -> None:
    from wsr.cli.tables import show_table

    rows = [
        (own.start.name, own.loss, own.metric, own.worse, own.low, own.high, "" if own.named else "worse")
        for own in found.scored
    ]
    columns = ("start", "probe loss", metric, "above the lowest", "above the best: low", "high", "certainly")
    show_table(columns, rows, title=f"{found.texts} texts")
    if found.dropped:
        print(f"dropped early, certainly worse on a quarter of the texts: {', '.join(found.dropped)}")
    names = [own.start.name for own in found.named]
    print(f"\nthe lowest loss: {names[0]}")
    if len(names) == 1:
        print(f"it is better than every other start, with confidence {found.confidence:g}")
    else:
        print(
            f"it lies at most {found.best.high:.3f} above the truly best start, which may be it or one of these, with "
            f"confidence {found.confidence:g}: {', '.join(names[1:])}"
        )
    if "base" in names[1:]:
        print("the base is among them: on these texts no member or centroid is certainly a better start")
    if found.texts < FEW_TEXTS:
        print(
            f"with {found.texts} texts only large differences show; take the start with the lowest loss, or label more "
            "texts (docs/check.md)"
        )


def _commands(values: Values, store: "Store", point: str, name: str, recipe: "Recipe") -> list[str]:
    """The command that exports the start, unless it is the base and at hand, and the one that fine-tunes from it."""
    import shlex
    from pathlib import Path

    from wsr.exchange.licences import on_hub
    from wsr.models.registry import checkpoints

    if not point and not (
        store.base_name in checkpoints() or on_hub(store.base_name) or Path(store.base_name).is_dir()
    ):
        point = "base"  # its folder is not here, but the store holds it
    slug = name.replace(" ", "-")
    folder = values.to or str(Path("runs") / f"start-{slug}")
    commands = []
    if point:
        commands.append(["wsr", "export", point, f"--store={values.store}", f"--to={folder}"])
    flags_of_data = [values[flag.name].serialize() for flag in dataset_flags.GROUP.flags if values[flag.name].present]
    commands.append(
        [
            *("wsr", "train", f"--store=runs/from-{slug}", f"--base={folder if point else store.base_name}"),
            *(f"--pooling={store.model_config['pooling']}",) * ("pooling" in store.model_config),
            f"--datasets={values.data}",
            *flags_of_data,
            *_flags_of(recipe),
        ]
    )
    return [shlex.join(words) for words in commands]


def _point(region: "Region", start: "Start") -> str:
    names = [(name, float(own)) for name, own in zip(region.names, start.coefficients, strict=True) if own]
    return names[0][0] if len(names) == 1 else ",".join(f"{name}={own!r}" for name, own in names)


def _recipe_of(records: "Sequence[MemberRecord]") -> "Recipe":
    """The recipe with which most members were trained, as far as the store knows it."""
    from collections import Counter
    from dataclasses import fields

    from wsr.training.recipe import Recipe

    names = [field.name for field in fields(Recipe)]
    known = Counter(
        tuple((name, record.hyperparameters[name]) for name in names if name in record.hyperparameters)
        for record in records
    )
    del known[()]  # imported members
    return Recipe(**dict(known.most_common(1)[0][0])) if known else Recipe()


def _flags_of(recipe: "Recipe") -> list[str]:
    """The flags of ``wsr train`` for a recipe: the rate, the batch and the epochs, and what is not the default."""
    from wsr.cli.train import PAGE as TRAIN
    from wsr.training.recipe import Recipe

    recipes = next(group for group in TRAIN.groups if group.heading == "Recipe")
    words = []
    for flag in recipes.flags:
        value = getattr(recipe, flag.name)
        if flag.name in ("learning_rate", "batch_size", "epochs") or value != getattr(Recipe(), flag.name):
            words.append(
                f"--{'' if value else 'no'}{flag.name}" if isinstance(value, bool) else f"--{flag.name}={value}"
            )
    return words
