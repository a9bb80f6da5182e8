"""``wsr merge``: members into one model."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from wsr.cli import adapter_flags, card_flags, dataset_flags, device_flags
from wsr.cli.explore import LOSS, load_all
from wsr.cli.flags import Flag, Group, Page, Values
from wsr.cli.merge_options import method_page, method_table, options, refuse_clashes, unlisted
from wsr.merging.method import METHODS

if TYPE_CHECKING:
    from wsr.exchange.adapter import Change
    from wsr.merging.method import Given, Method
    from wsr.merging.run import Groups
    from wsr.models import Checkpoint
    from wsr.region.region import Region
    from wsr.store import Store


PAGE = Page(
    "wsr merge",
    "wsr merge --store=STORE --to=FOLDER [--method=METHOD] [options]",
    "Merge members of a store into one model and write it as a Hugging Face folder with config, tokenizer and "
    "safetensors, or as a LoRA adapter.",
    (
        "wsr merge --store=runs/mine --datasets=made_up_a1 --to=runs/merged",
        "wsr merge --store=runs/mine --method=ties --density=0.3 --to=runs/ties-0.3",
    ),
    (
        Group(
            "What is merged",
            (
                Flag("store", "Folder or URL of the store; required unless --recipe merges files."),
                Flag("members", "Members to merge.", (), otherwise="all members"),
                Flag("datasets", "Datasets whose members are merged.", (), otherwise="all datasets"),
                Flag("families", "Families whose members are merged.", (), otherwise="all families"),
                Flag(
                    "leave_out",
                    "Dataset whose members are left out, with those of datasets that share texts with it.",
                    value="DATASET",
                ),
            ),
        ),
        Group(
            "How it is merged",
            (
                Flag("method", "Method from the table above.", "uniform"),
                Flag(
                    "groups",
                    "YAML file that merges some leaves by other methods: a list of entries such as "
                    "{leaves: REGEX, method: NAME, density: 0.5}.",
                    value="FILE",
                ),
                Flag(
                    "recipe",
                    "mergekit recipe in YAML, instead of --method and its options. Its models are safetensors files or "
                    "Hugging Face folders, or members of --store.",
                    value="FILE",
                ),
                Flag(
                    "tokenizer",
                    "Vocabulary of a --recipe whose files have different ones: base, that of the base or of the first "
                    "model; union, with the added tokens of the others; or a folder with a tokenizer.",
                    value="base|union|FOLDER",
                    otherwise="the files must have one vocabulary",
                ),
                Flag(
                    "force",
                    "Merge the files of --recipe although they differ in config, vocabulary, classes or base.",
                    False,
                ),
            ),
        ),
        Group(
            "Texts",
            (
                Flag(
                    "on",
                    "Dataset on which coefficients are chosen and the result is scored; learned chooses on several.",
                    (),
                    value="DATASET,...",
                    otherwise="the result is not scored",
                ),
                LOSS,
                dataset_flags.BETWEEN,
                dataset_flags.ALLOW_OVERLAP,
                Flag(
                    "own",
                    "Datasets on which the members were fine-tuned, for fisher, regmean and adamerging.",
                    (),
                    value="DATASET,...",
                    otherwise="the datasets that the store names",
                ),
                *(
                    Flag(f"{split}_size", f"Number of texts of the {split} split; 0 for all.", 300)
                    for split in ("probe", "validation", "test")
                ),
            ),
        ),
        dataset_flags.GROUP,
        device_flags.GROUP,
        Group(
            "Output",
            (
                *adapter_flags.FLAGS,
                card_flags.LICENSE,
                Flag("to", "New folder to write.", value="FOLDER", required=True),
            ),
        ),
    ),
    (
        method_table(),
        "wsr merge --method=METHOD --help shows the options of one method.",
        "Plain texts and questions (--loss=language_model, --loss=choices) have no splits: a random half of them "
        "chooses the coefficients, and the other half scores the result.",
    ),
    unlisted=unlisted(),
    variants={f"--method={name}": method_page(name) for name in METHODS},
)
refuse_clashes(PAGE)


def run(values: Values, positional: Sequence[str]) -> None:
    """Merges the members, exports the result and prints what was merged."""
    from pathlib import Path

    from wsr.cli.checks import one_of
    from wsr.errors import WsrError

    if Path(values.to).exists():
        raise WsrError(f"--to={values.to} exists already; name a new folder")
    if values.force and (values.store or not values.recipe):
        raise WsrError("--force is for --recipe without --store: it merges files that do not fit together")
    if values.tokenizer and (values.store or not values.recipe):
        raise WsrError("--tokenizer is for --recipe without --store: members of a store have one vocabulary")
    if adapter_flags.wanted(values) and values.recipe and not values.store:
        raise WsrError("--as=adapter is for the members of a store; add --store, or merge files as whole models")
    if values.recipe:
        _by_recipe(values)
        return
    if not values.store:
        raise WsrError("--store is needed: the store whose members are merged; or merge files by --recipe")
    one_of("--method", values.method, METHODS)
    method, groups = _method(values), _groups(values)
    _by_method(values, method, groups)


def _by_recipe(values: Values) -> None:
    """Files are merged without JAX and without a model."""
    from functools import cache, partial
    from pathlib import Path

    from wsr.errors import WsrError
    from wsr.merging.files import merge_files, merge_members, methods_of_members
    from wsr.merging.recipe import read_recipe
    from wsr.runtime.printable import printable

    given = [flag for flag in ("method", "groups", "on", "loss", *options()) if values[flag].present]
    if given:
        raise WsrError(f"--recipe names method and options itself; leave out --{', --'.join(given)}")
    recipe = read_recipe(Path(values.recipe))
    notes: list[str] = []
    if values.store:
        from wsr.merging.linear import change_of_merge
        from wsr.region.learned import learned_region
        from wsr.store import Store

        store = Store.open(values.store)
        card_flags.refuse_unclear_licences(values, store, recipe.members)
        region = learned_region(store)
        merged = cache(partial(merge_members, recipe, region, store.base_name))
        methods = methods_of_members(recipe, region, store.base_name).__getitem__
        change = change_of_merge(store, recipe.members, methods, merged)
        members = dict.fromkeys(recipe.members)
        _export(values, store, store.checkpoint(), merged, change, recipe.merge_method, members)
    else:
        card = card_flags.card_of_recipe(values, recipe)
        notes = merge_files(recipe, Path(values.to), force=values.force, tokenizer=values.tokenizer, card=card)
    for note in notes:
        print(printable(note))
    print(f"{recipe.merge_method} merge of {len(recipe.members)}: {', '.join(recipe.members)}\nwritten to {values.to}")


def _by_method(values: Values, method: "Method", groups: "Groups") -> None:
    from functools import cache, partial

    from wsr.cli.merge_scores import show_coefficients, show_scores, show_search
    from wsr.errors import WsrError
    from wsr.geometry.trees import flatten
    from wsr.merging.linear import change_of_merge
    from wsr.merging.run import assigned, merge, refuse_missing
    from wsr.merging.soups import Chosen, Learned
    from wsr.region.learned import learned_region
    from wsr.store import Store

    chooses = isinstance(method, Chosen)
    if chooses and not values.on:
        raise WsrError(f"--method={values.method} chooses coefficients on a dataset: --on is needed")
    store = Store.open(values.store)
    region = learned_region(store)
    region = _chosen_members(values, region)
    method.refuse_members(region.names)
    card_flags.refuse_unclear_licences(values, store, region.names)
    base = store.checkpoint()
    given = _given(values, store, region, base, own="own" in method.needs)
    refuse_missing(method, given)
    coefficients, protocols = None, None
    if isinstance(method, Learned):
        search = method.search(region, given)
        coefficients, protocols = search.coefficients, search.protocols
        if len(region) > 1:
            show_search(search, region, given.datasets)
    elif isinstance(method, Chosen):
        coefficients = method.row(region, given)
    merged = cache(
        partial(merge, region, method, given, groups=groups)
        if coefficients is None
        else partial(region.params, coefficients)
    )
    if coefficients is not None:
        show_coefficients(region, coefficients)
    if values.on:
        show_scores(values.method, region, given, merged(), protocols)
    if values.method == "uniform" and not groups:
        coefficients = region.centroid()
    members = dict(
        zip(region.names, [None] * len(region) if coefficients is None else coefficients.tolist(), strict=True)
    )
    methods = assigned(flatten(region.base), method, groups).__getitem__
    change = change_of_merge(store, region.names, methods, merged, coefficients)
    _export(values, store, base, merged, change, values.method, members)
    print(f"{values.method} merge of {len(region)} members: {', '.join(region.names)}\nwritten to {values.to}")


def _export(
    values: Values,
    store: "Store",
    base: "Checkpoint",
    merged: Callable[[], Mapping[str, Any]],
    change: "Change",
    method: str,
    members: Mapping[str, float | None],
) -> None:
    """Writes the folder; ``members`` have coefficients if the merge is a point between them."""
    from functools import partial
    from pathlib import Path

    from wsr.cli.command import command_of
    from wsr.exchange.model_card import model_card
    from wsr.exchange.modules import modules_of_point
    from wsr.geometry.trees import flatten
    from wsr.models.huggingface.folder import write_folder
    from wsr.models.huggingface.sentence_modules import lost_modules
    from wsr.runtime.printable import printable

    card = partial(
        model_card,
        store,
        members,
        title=Path(values.to).name,
        method=f"{method} merge of {len(members)} models fine-tuned from one checkpoint",
        command=command_of("merge", values),
        licence=values.license,
    )
    if adapter_flags.wanted(values):
        adapter_flags.write(values, store, change, card, hint=f" after {method} of these members")
        return
    files = store.companions([name for name in members if name in store])
    modules = modules_of_point(store, members)
    leaf = flatten(merged()).__getitem__
    write_folder(base.model, leaf, base.processor, Path(values.to), card=card(), companions=files, modules=modules)
    if modules and None in members.values():
        print(f"averaged, not merged by {method}: {', '.join(modules)}")
    for lost in lost_modules(files | dict.fromkeys(modules, Path()), base.model):
        print(printable(f"not the SentenceTransformer that it was: {lost}"))
    for name in store.replaced():
        print(printable(f"{name} in {store.base_name} has changed since: the store's own copy is used"))


def _chosen_members(values: Values, region: "Region") -> "Region":
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
        raise WsrError(
            "no member is left after --members, --datasets, --families and --leave_out; remove one of these options"
        )
    return region


def _given(values: Values, store: "Store", region: "Region", base: "Checkpoint", *, own: bool) -> "Given":
    """Loads what the method needs beside the weights."""
    from dataclasses import replace

    from wsr.engine.evaluate import Protocol
    from wsr.merging.method import Given
    from wsr.runtime.compilation import use_persistent_cache

    if not values.on and not own:
        return Given()
    use_persistent_cache()
    splits, datasets = ("probe", "validation", "test"), {}
    sizes = {split: size for split in splits if (size := values[f"{split}_size"].value)}
    records = [store.record(name) for name in region.names]
    for name in (values.own or sorted(set(region.datasets))) if own else []:
        dataset = dataset_flags.load(values, name, base.processor, sizes=sizes)
        called = dataset_flags.called_in_store(dataset, records)
        datasets[called] = replace(dataset, name=called)
    heads = {name: store.head(name) for name in region.names} if own else {}
    settings = device_flags.settings_of(values, results=store.results())
    scored = load_all(values, store, region, splits)
    return Given(scored, datasets, heads, Protocol(), settings)


def _method(values: Values) -> "Method":
    """The method with the options that were given as flags."""
    from wsr.merging.method import made

    given = {option: values[option].value for option in options() if values[option].present}
    return made(values.method, _typed(values.method, given))


def _groups(values: Values) -> "Groups":
    """Reads --groups; an entry takes the options given as flags, unless it names them itself."""
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
        raise WsrError(f"--groups={values.groups}: expected a list of {{leaves: REGEX, method: NAME, OPTION: VALUE}}")
    flagged = {option: values[option].value for option in options() if values[option].present}
    groups = []
    for entry in content:
        name = entry.get("method", values.method)
        shared = {option: value for option, value in flagged.items() if option in options_of(find(name))}
        own = {option: value for option, value in entry.items() if option not in ("leaves", "method")}
        groups.append((entry["leaves"], made(name, _typed(name, {**shared, **own}))))
    return groups


def _typed(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Turns words of the command line and lists of YAML into values; the method refuses what does not fit."""
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
