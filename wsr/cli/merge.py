"""merges members of a store into one model and writes it as a Hugging Face folder: config, tokenizer, safetensors.

--method=uniform averages; greedy, learned (between the members) and learned_free (beyond them too) choose coefficients
by the probe and validation splits of --on, and show them with scores on its test split, which has no part in it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from absl import flags

from wsr.cli import dataset_flags

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from wsr.data.dataset import Dataset
    from wsr.region import Region


def define(values: flags.FlagValues) -> None:
    """Defines the verb's flags."""
    dataset_flags.define(values)
    flags.DEFINE_string("store", None, "The store.", flag_values=values)
    flags.DEFINE_string("to", None, "Folder to write; it must not be there yet.", flag_values=values)
    flags.DEFINE_string(
        "method", "uniform", "How members are merged: uniform, greedy, learned, learned_free.", flag_values=values
    )
    flags.DEFINE_string("on", None, "The dataset that coefficients are chosen and scored on.", flag_values=values)
    for split in ("probe", "validation", "test"):
        flags.DEFINE_integer(f"{split}_size", 300, f"Texts of its {split} split; 0: all.", flag_values=values)
    flags.DEFINE_list("members", [], "Only these members.", flag_values=values)
    flags.DEFINE_list("datasets", [], "Only members of these datasets.", flag_values=values)
    flags.DEFINE_list("families", [], "Only members of these families.", flag_values=values)
    flags.DEFINE_string(
        "leave_out",
        None,
        "A dataset whose members, and those of datasets that share texts with it, are left out.",
        flag_values=values,
    )


def run(values: flags.FlagValues, positional: Sequence[str]) -> None:
    """Merges and exports."""
    from pathlib import Path

    from wsr.cli.checks import one_of, refuse_positional, required
    from wsr.cli.command import command_of
    from wsr.cli.population import open_base, open_region
    from wsr.errors import WsrError
    from wsr.merging import CHOICES, METHODS
    from wsr.model_card import model_card
    from wsr.models import Checkpoint, export

    refuse_positional(positional)
    required("--store", values.store)
    required("--to", values.to)
    one_of("--method", values.method, [*METHODS, *CHOICES])
    if values.method in CHOICES and not values.on:
        raise WsrError(f"--method={values.method} chooses by a dataset: --on is needed")
    store, region = open_region(values.store)
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
    base = open_base(store)
    if Path(values.to).exists():
        raise WsrError(f"{values.to} is already there; give --to another folder")
    if values.on:
        sizes = {split: values[f"{split}_size"].value for split in ("probe", "validation", "test")}
        sizes = {split: size for split, size in sizes.items() if size}
        dataset = dataset_flags.load(values, values.on, base.tokenizer, sizes=sizes)
        coefficients = _chosen(values.method, region, dataset, Path(values.store) / "points")
        merged = region.params(coefficients)
    else:
        merged = METHODS[values.method](region)
        coefficients = region.centroid() if values.method == "uniform" else [None] * len(region)
    card = model_card(
        store,
        dict(zip(region.names, coefficients, strict=True)),
        title=Path(values.to).name,
        method=f"{values.method} merge of {len(region)} models fine-tuned from one checkpoint",
        command=command_of("merge", values),
    )
    export(Checkpoint(base.model, merged, base.tokenizer), Path(values.to), card=card)
    print(f"{values.method} merge of {len(region)} members: {', '.join(region.names)}\nwritten to {values.to}")


def _chosen(method: str, region: "Region", dataset: "Dataset", folder: "Path") -> "np.ndarray":
    """Chooses coefficients on the dataset and shows them, with scores beside those of the centroid."""
    import numpy as np

    from wsr.cli.tables import show_table
    from wsr.compilation import use_persistent_cache
    from wsr.evaluate import Protocol, evaluate
    from wsr.merging import CHOICES, on_validation
    from wsr.results import Points

    use_persistent_cache()
    protocol, points = Protocol(), Points.on_disk(folder)
    centroid = region.centroid()
    coefficients = CHOICES[method](region, dataset, protocol, points) if method in CHOICES else centroid
    show_table(("member", "coefficient"), zip(region.names, coefficients.tolist(), strict=True))
    rows = np.stack([centroid, coefficients])
    validation = evaluate(region, rows, on_validation(dataset), protocol=protocol, points=points)
    test = evaluate(region, rows, dataset, protocol=protocol, points=points)
    columns = (validation.generalised_loss, test.generalised_loss, test.scores)
    show_table(
        ("point", "validation loss", "test loss", f"test {dataset.metric}"),
        [(name, *(float(column[row]) for column in columns)) for row, name in enumerate(("centroid", method))],
        title=dataset.name,
    )
    return coefficients
