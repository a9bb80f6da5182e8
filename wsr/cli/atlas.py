"""``wsr atlas``: a map of any number of models fine-tuned from one base."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from wsr.cli.flags import Flag, Group, Page, Values

if TYPE_CHECKING:
    from wsr.exchange.atlas import Atlas, Place

ACTIONS = ("add", "where", "page")
PAGE = Page(
    "wsr atlas",
    "wsr atlas add MODEL... --store=STORE [options]\n       wsr atlas where MODEL --store=STORE [options]\n"
    "       wsr atlas page --store=STORE [options]",
    "Keep a sketch of every model that anyone fine-tuned from one base, find what a model resembles, and draw all of "
    "them.",
    (
        "wsr atlas add runs/theirs/first runs/mine --store=runs/atlas --base=tiny",
        "wsr atlas page --store=runs/atlas --out=runs/atlas.html",
    ),
    (
        Group(
            "The atlas",
            (
                Flag("store", "Folder of the store that holds the atlas; wsr atlas add creates it.", required=True),
                Flag(
                    "base",
                    "Checkpoint from which the models were fine-tuned: a name, a folder or a hub name.",
                    otherwise="the base of the store; required for a new store",
                ),
                Flag("size", "Numbers per sketch of a new atlas, a power of two.", 4096, at_least=64),
            ),
        ),
        Group(
            "add",
            (
                Flag("hub_list", "File with one model per line, added after those of the call.", value="FILE"),
                Flag(
                    "names",
                    "Names of the models in the atlas, one per model in the same order.",
                    (),
                    otherwise="the names of the folders",
                ),
                Flag(
                    "dataset",
                    "Datasets on which the models were fine-tuned: one for all models, or one per model in the same "
                    "order.",
                    (),
                    otherwise="found in the models' names and the members' records",
                ),
            ),
        ),
        Group(
            "where",
            (
                Flag("nearest", "Number of neighbours shown.", 10, at_least=1),
                Flag(
                    "exact",
                    "Number of models, nearest by their sketches, whose cosines are computed from their weights; the "
                    "neighbours shown are the nearest among them.",
                    20,
                    at_least=0,
                ),
                Flag(
                    "lineage",
                    "Number of these neighbours that are tested for what they are to the model, by the test of wsr "
                    "lineage.",
                    3,
                    at_least=0,
                ),
            ),
        ),
        Group(
            "page",
            (
                Flag("out", "Page to write.", value="FILE", otherwise="runs/atlas-NAME.html, for the store's name"),
                Flag("seed", "Seed of the positions.", 0),
            ),
        ),
    ),
    (
        "wsr atlas where runs/theirs/first --store=runs/atlas says which models one resembles.",
        "MODEL is a Hugging Face folder, a LoRA adapter or a hub name; wsr atlas add takes stores too, and adds their "
        "members. A model takes 8 KiB, and its weights are not kept.",
        "Several processes may add to one atlas at once. After an interruption, the same command resumes.",
        "docs/atlas.md explains the sketches, their errors and the page.",
    ),
    positional=None,
)


def run(values: Values, positional: Sequence[str]) -> None:
    """Adds models, tells where a model lies, or writes the page."""
    from wsr.errors import WsrError, nearest_names

    action, models = (positional[0], positional[1:]) if positional else ("", ())
    if action not in ACTIONS:
        told = f"; nearest: {nearest_names(action, ACTIONS, most=1)}" if action else ""
        raise WsrError(f"wsr atlas: expected one of {', '.join(ACTIONS)}, found {action!r}{told}")
    atlas = _open(values, create=action == "add")
    if action == "add":
        _add(values, atlas, models)
    elif action == "where":
        if len(models) != 1:
            raise WsrError(f"wsr atlas where: expected one model, found {len(models)}")
        place = atlas.locate(models[0], count=values.nearest, exact=values.exact, lineage=values.lineage)
        _show(place, atlas.store.base_name, tried=values.exact > 0)
    else:
        _page(values, atlas, models)


def _open(values: Values, *, create: bool) -> "Atlas":
    from wsr.errors import WsrError
    from wsr.exchange.atlas import Atlas
    from wsr.models import load
    from wsr.store import Store

    there = Store.is_at(values.store)
    if not there and not create:
        raise WsrError(f"{values.store}: no store; wsr atlas add MODEL... --store={values.store} creates one")
    if not there and not values.base:
        raise WsrError(
            f"{values.store} is a new store, so --base is needed: the checkpoint from which the models were fine-tuned"
        )
    store = Store.create_for(values.store, load(values.base)) if values.base else Store.open(values.store)
    return Atlas(store, size=values["size"].value if values["size"].present else None)


def _add(values: Values, atlas: "Atlas", models: Sequence[str]) -> None:
    from pathlib import Path

    from wsr.errors import WsrError
    from wsr.runtime.printable import printable
    from wsr.runtime.progress import progress

    wanted = list(models)
    if values.hub_list:
        try:
            lines = Path(values.hub_list).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise WsrError(f"--hub_list={values.hub_list}: {error}") from error
        wanted += [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not wanted:
        raise WsrError("no model is named: wsr atlas add MODEL... or --hub_list=FILE")
    for flag, given in (("--names", values.names), ("--dataset", values.dataset)):
        if given and len(given) != len(wanted) and not (flag == "--dataset" and len(given) == 1):
            raise WsrError(f"{flag}: expected one per model, found {len(given)} for {len(wanted)} models")
    datasets = list(values.dataset) * (len(wanted) if len(values.dataset) == 1 else 1)
    before = len(atlas)
    with progress("atlas", len(wanted), "models") as counter:
        refused = atlas.add(
            wanted,
            names=values.names or None,
            datasets=datasets or None,
            tell=lambda line: print(printable(line), flush=True),
            counter=counter,
        )
    print(f"{len(atlas)} models in the atlas, {len(atlas) - before} of them new")
    if refused:
        raise WsrError(
            f"{len(refused)} of {len(wanted)} models were refused, for the reasons above: {', '.join(refused)}"
        )


def _show(place: "Place", base: str, *, tried: bool) -> None:
    """Shows the neighbours; ``tried`` says whether their weights were read."""
    from wsr.cli.tables import show_table
    from wsr.runtime.printable import printable

    if place.copies:
        print(printable(f"{place.name} has the same weights as {', '.join(place.copies)}"))
    rows = []
    for near in place.neighbours:
        gone = "gone or changed" if tried and near.kin else ""
        exact = gone if near.exact is None else f"{near.exact:.4f}"
        told = "by chance" if (near.cosine if near.exact is None else near.exact) < place.noise else ""
        estimate = f"{near.cosine:.3f} ± {1.96 * near.standard_error:.3f}"
        rows.append((printable(near.entry.name), printable(near.entry.dataset), estimate, exact, near.kin, told))
    if place.base:
        rows.append((f"{base} (base)", "", "", "", place.base, ""))
    columns = ("model", "dataset", "estimated cosine", "exact", "relation", "note")
    show_table(columns, rows, title=f"Models nearest to {place.name}")
    print(
        "Estimates have 95 % intervals. Models without anything in common reach a cosine of "
        f"{place.noise:.3f} by chance."
    )
    if place.base:
        print(printable(f"The relation is what a model is to {place.name}, as wsr lineage tells it."))


def _page(values: Values, atlas: "Atlas", models: Sequence[str]) -> None:
    from pathlib import Path

    from wsr.errors import WsrError
    from wsr.report.atlas.page import write_atlas_page

    if models:
        raise WsrError(f"wsr atlas page: unexpected {' '.join(models)!r}; options are written --name=value")
    out = Path(values.out) if values.out else Path("runs") / f"atlas-{Path(values.store).name}.html"
    models_on_page = write_atlas_page(atlas, out, seed=values.seed)
    print(f"page: {out} ({models_on_page} models, {out.stat().st_size / 1e6:.1f} MB)")
