"""merges members of a store into one model and writes it as a Hugging Face folder: config, tokenizer, safetensors.

--method names how; docs/merging.md tells formulas and sources. greedy, learned and learned_free choose coefficients by
the probe and validation splits of --on, and show them with scores on its test split, which has no part in it; fisher,
regmean and adamerging read texts of the members' own datasets. --groups=FILE.yaml merges some leaves otherwise: a list
of {leaves: REGEX, method: NAME, and options}.

--recipe=FILE.yaml merges as a mergekit recipe says: its models are safetensors files or Hugging Face folders, or with
--store members by name."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from absl import flags

from wsr.cli import dataset_flags, device_flags

if TYPE_CHECKING:
    import numpy as np

    from wsr.data.dataset import Dataset
    from wsr.merging.method import Given, Method
    from wsr.merging.run import Groups
    from wsr.models import Checkpoint
    from wsr.region.region import Region
    from wsr.store import Store


def define(values: flags.FlagValues) -> None:
    """Defines the verb's flags: its own, and one for each option that a method has."""
    from wsr.merging.method import METHODS, find, kind_of, options_of

    dataset_flags.define(values)
    text = flags.DEFINE_string
    text("store", None, "The store.", flag_values=values)
    text("to", None, "Folder to write; it must not be there yet.", flag_values=values)
    text("method", "uniform", f"How members are merged: {', '.join(METHODS)}.", flag_values=values)
    text("recipe", None, "A YAML recipe, in place of --method and its options.", flag_values=values)
    text("groups", None, "A YAML list of {leaves: REGEX, ...}: leaves that are merged otherwise.", flag_values=values)
    text("on", None, "The dataset that coefficients are chosen and scored on.", flag_values=values)
    flags.DEFINE_list("own", [], "The members' own datasets; by default as they are called.", flag_values=values)
    for split in ("probe", "validation", "test"):
        flags.DEFINE_integer(f"{split}_size", 300, f"Texts of its {split} split; 0: all.", flag_values=values)
    flags.DEFINE_list("members", [], "Only these members.", flag_values=values)
    flags.DEFINE_list("datasets", [], "Only members of these datasets.", flag_values=values)
    flags.DEFINE_list("families", [], "Only members of these families.", flag_values=values)
    text(
        "leave_out",
        None,
        "A dataset whose members, and those of datasets that share texts with it, are left out.",
        flag_values=values,
    )
    device_flags.define_engine(values)
    having: dict[str, list[str]] = {}
    told: dict[str, str] = {}
    for name in METHODS:
        for option, (hint, _, what) in options_of(find(name)).items():
            having.setdefault(option, []).append(name)
            told.setdefault(option, f"{what} {kind_of(hint).capitalize()}.")
    for option, what in told.items():
        text(option, None, f"Of {', '.join(having[option])}: {what}", flag_values=values)


def run(values: flags.FlagValues, positional: Sequence[str]) -> None:
    """Merges and exports."""
    from pathlib import Path

    from wsr.cli.checks import one_of, refuse_positional, required
    from wsr.errors import WsrError
    from wsr.merging.method import METHODS

    refuse_positional(positional)
    required("--to", values.to)
    if Path(values.to).exists():
        raise WsrError(f"{values.to} is already there; give --to another folder")
    if values.recipe:
        _by_recipe(values)
        return
    required("--store", values.store)
    one_of("--method", values.method, METHODS)
    method, groups = _method(values), _groups(values)
    _by_method(values, method, groups)


def _by_recipe(values: flags.FlagValues) -> None:
    """Files need neither JAX nor a model: they are merged as they lie."""
    from pathlib import Path

    from wsr.errors import WsrError
    from wsr.merging.files import merge_files, merge_members
    from wsr.merging.recipe import read_recipe

    given = [flag for flag in ("method", "groups", "on", *_options(values)) if values[flag].present]
    if given:
        raise WsrError(f"--recipe says it all; leave out --{', --'.join(given)}")
    recipe = read_recipe(Path(values.recipe))
    if values.store:
        from wsr.region.learned import learned_region
        from wsr.store import Store

        store = Store.open(values.store)
        region = learned_region(store)
        merged = merge_members(recipe, region, store.base_name)
        members = dict.fromkeys(recipe.members)
        _export(values, store, store.checkpoint(), merged, recipe.merge_method, members)
    else:
        merge_files(recipe, Path(values.to))
    print(f"{recipe.merge_method} merge of {len(recipe.members)}: {', '.join(recipe.members)}\nwritten to {values.to}")


def _by_method(values: flags.FlagValues, method: "Method", groups: "Groups") -> None:
    from wsr.errors import WsrError
    from wsr.merging.run import merge, refuse_missing
    from wsr.merging.soups import Chosen
    from wsr.region.learned import learned_region
    from wsr.store import Store

    chooses = isinstance(method, Chosen)
    if chooses and not values.on:
        raise WsrError(f"--method={values.method} chooses by a dataset: --on is needed")
    store = Store.open(values.store)
    region = learned_region(store)
    region = _chosen_members(values, region)
    method.refuse_members(region.names)
    base = store.checkpoint()
    given = _given(values, store, region, base, own="own" in method.needs)
    refuse_missing(method, given)
    coefficients = method.row(region, given) if isinstance(method, Chosen) else None
    merged = merge(region, method, given, groups=groups) if coefficients is None else region.params(coefficients)
    if values.on:
        _show_scores(values.method, region, given, coefficients, merged)
    if values.method == "uniform" and not groups:
        coefficients = region.centroid()
    members = dict(
        zip(region.names, [None] * len(region) if coefficients is None else coefficients.tolist(), strict=True)
    )
    _export(values, store, base, merged, values.method, members)
    print(f"{values.method} merge of {len(region)} members: {', '.join(region.names)}\nwritten to {values.to}")


def _export(
    values: flags.FlagValues,
    store: "Store",
    base: "Checkpoint",
    merged: Mapping[str, Any],
    method: str,
    members: Mapping[str, float | None],
) -> None:
    """Writes the folder; ``members`` have coefficients where the merge is a point between them."""
    from pathlib import Path

    from wsr.cli.command import command_of
    from wsr.exchange.model_card import model_card
    from wsr.models import export

    card = model_card(
        store,
        members,
        title=Path(values.to).name,
        method=f"{method} merge of {len(members)} models fine-tuned from one checkpoint",
        command=command_of("merge", values),
    )
    export(base.with_params(merged), Path(values.to), card=card)


def _chosen_members(values: flags.FlagValues, region: "Region") -> "Region":
    from wsr.cli.checks import one_of
    from wsr.errors import WsrError

    for flag, wanted, present in (
        ("--members", values.members, region.names),
        ("--datasets", values.datasets, region.datasets),
        ("--families", values.families, region.families),
    ):
        for name in wanted:
            one_of(flag, name, sorted(set(present)))
    if values.leave_out:
        one_of("--leave_out", values.leave_out, sorted(set(region.datasets)))
        region = region.without_dataset(values.leave_out)
    region = region.where(
        lambda member: (
            (not values.members or member.name in values.members)
            and (not values.datasets or member.dataset in values.datasets)
            and (not values.families or member.family in values.families)
        )
    )
    if not region.members:
        raise WsrError("merge: no member is left by --members, --datasets, --families and --leave_out together")
    return region


def _given(values: flags.FlagValues, store: "Store", region: "Region", base: "Checkpoint", *, own: bool) -> "Given":
    """Loads what the method needs beside the weights."""

    from wsr.engine.evaluate import Protocol
    from wsr.merging.method import Given
    from wsr.runtime.compilation import use_persistent_cache

    def load(name: str) -> "Dataset":
        sizes = {split: values[f"{split}_size"].value for split in ("probe", "validation", "test")}
        given = {split: size for split, size in sizes.items() if size}
        return dataset_flags.load(values, name, base.processor, sizes=given)

    if not values.on and not own:
        return Given()
    use_persistent_cache()
    datasets = {}
    for name in (values.own or sorted(set(region.datasets))) if own else []:
        dataset = load(name)
        datasets[dataset.name] = dataset
    heads = {name: store.head(name) for name in region.names} if own else {}
    settings = device_flags.settings_of(values, results=store.results())
    return Given(load(values.on) if values.on else None, datasets, heads, Protocol(), settings)


def _method(values: flags.FlagValues) -> "Method":
    """The method with the options that were given as flags."""
    from wsr.merging.method import made

    given = {option: values[option].value for option in _options(values) if values[option].present}
    return made(values.method, _typed(values.method, given))


def _groups(values: flags.FlagValues) -> "Groups":
    """Reads --groups; an entry has the options of the flags, but for those that it names."""
    from pathlib import Path

    from wsr.errors import WsrError
    from wsr.merging.method import find, made, options_of
    from wsr.merging.yaml_file import read_yaml

    if not values.groups:
        return []
    content = read_yaml(Path(values.groups))
    if not isinstance(content, list) or not all(
        isinstance(e, dict) and isinstance(e.get("leaves"), str) for e in content
    ):
        raise WsrError(f"--groups={values.groups}: expected a list of {{leaves: REGEX, method: NAME, and options}}")
    flagged = {option: values[option].value for option in _options(values) if values[option].present}
    groups = []
    for entry in content:
        name = entry.get("method", values.method)
        shared = {option: value for option, value in flagged.items() if option in options_of(find(name))}
        own = {option: value for option, value in entry.items() if option not in ("leaves", "method")}
        groups.append((entry["leaves"], made(name, _typed(name, {**shared, **own}))))
    return groups


def _options(values: flags.FlagValues) -> list[str]:
    from wsr.merging.method import METHODS, find, options_of

    return list(dict.fromkeys(option for name in METHODS for option in options_of(find(name))))


def _typed(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Words of the command line, and lists of YAML, as values; what is none of them is refused by the method."""
    from wsr.merging.method import find, options_of

    known = options_of(find(name))

    def typed(option: str, value: Any) -> Any:
        if option not in known:
            return value
        hint = str(known[option][0])
        if isinstance(value, str) and hint == str(bool):
            return {"true": True, "false": False}.get(value.lower(), value)
        if isinstance(value, list):
            return tuple(value)
        if isinstance(value, str) and "tuple" in hint and ("," in value or "float |" not in hint):
            return tuple(_number(word) for word in value.split(","))
        return value if hint == str(str) else _number(value)

    return {option: typed(option, value) for option, value in given.items()}


def _number(word: Any) -> Any:
    if not isinstance(word, str):
        return word
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            continue
    return word


def _show_scores(
    method: str, region: "Region", given: "Given", coefficients: "np.ndarray | None", merged: Mapping[str, Any]
) -> None:
    """Shows the coefficients, where there are some, and scores beside those of the centroid."""
    from functools import partial

    import numpy as np

    from wsr.cli.tables import show_table
    from wsr.engine.evaluate import Protocol, evaluate
    from wsr.engine.settings import Settings
    from wsr.merging.soups import on_validation
    from wsr.region.region import from_params

    if coefficients is not None:
        show_table(("member", "coefficient"), zip(region.names, coefficients.tolist(), strict=True))
    merge = from_params(region.model, region.base, {method: merged}).members
    both = region.joined(merge)
    rows = np.zeros((2, len(both)))
    rows[0, : len(region)] = region.centroid()
    rows[1, -1] = 1
    dataset = given.dataset
    score = partial(evaluate, both, rows, protocol=given.protocol or Protocol(), settings=given.settings or Settings())
    validation, test = score(on_validation(dataset)), score(dataset)
    columns = (validation.generalised_loss, test.generalised_loss, test.scores)
    show_table(
        ("point", "validation loss", "test loss", f"test {dataset.metric}"),
        [(name, *(float(column[row]) for column in columns)) for row, name in enumerate(("centroid", method))],
        title=dataset.name,
    )
