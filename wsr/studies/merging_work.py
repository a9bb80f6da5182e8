"""What the benchmark of merge methods would train and evaluate."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from wsr.studies.harness.preset import Preset
from wsr.studies.harness.work import Work, sizes_of
from wsr.studies.merged_models import ON_ONE, Effort, points_evaluated, texts_read
from wsr.studies.merging_draws import Draw


def work_of(
    preset: Preset,
    draws: Sequence[Draw],
    recipe: Callable[[str], Mapping[str, Any]],
    names: Sequence[str],
    effort: Effort,
) -> Work:
    """Returns the counts; the merges themselves come on top.

    Args:
      preset: the population and the protocol.
      draws: the populations.
      recipe: for each kind, how its members are trained where it differs from the preset.
      names: the methods.
      effort: how many options are tried.
    """
    usual = {member for draw in draws if not recipe(draw.kind) for member in draw.members}
    changed = [draw for draw in draws if recipe(draw.kind)]
    others = {(draw.kind, member): recipe(draw.kind) for draw in changed for member in draw.members}
    epochs = [float(own.get("epochs", preset.epochs)) for own in others.values()]
    points, read = 0, 0.0
    for draw in draws:
        datasets = [dataset for dataset, _ in draw.members]
        sizes = {name: sizes_of(name, preset) for name in datasets}
        models = 1 + len(datasets)
        applied = [name for name in names if len(sizes) == 1 or name not in ON_ONE]
        for own in sizes.values():
            read += models * own["validation"] + (models + len(applied)) * own["test"]
        for name in applied:
            if name == "greedy":  # the only method that evaluates single points on a dataset
                points += points_evaluated(name, len(datasets), effort)
            else:
                read += texts_read(name, datasets, sizes, effort)
    return Work(
        members=len(usual) + len(others),
        points=points,
        epochs=sum(epochs) / len(epochs) if epochs else None,
        own_members=len(others),
        datasets=tuple(dict.fromkeys(dataset for draw in draws for dataset, _ in draw.members)),
        read_texts=read,
    )
