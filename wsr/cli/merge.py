"""averages members of a store into one model and writes it as a Hugging Face folder: config, tokenizer, safetensors."""

from collections.abc import Sequence

from absl import flags


def define(values: flags.FlagValues) -> None:
    """Defines the verb's flags."""
    flags.DEFINE_string("store", None, "The store.", flag_values=values)
    flags.DEFINE_string("to", None, "Folder to write; it must not be there yet.", flag_values=values)
    flags.DEFINE_string("method", "uniform", "How members are merged.", flag_values=values)
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
    from wsr.cli.population import open_base, open_region
    from wsr.errors import WsrError
    from wsr.merging import METHODS
    from wsr.models import Checkpoint, export

    refuse_positional(positional)
    required("--store", values.store)
    required("--to", values.to)
    one_of("--method", values.method, METHODS)
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
    merged = METHODS[values.method](region)
    base = open_base(store)
    export(Checkpoint(base.model, merged, base.tokenizer), Path(values.to))
    print(f"{values.method} merge of {len(region)} members: {', '.join(region.names)}\nwritten to {values.to}")
