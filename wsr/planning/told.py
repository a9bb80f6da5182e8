"""Writes an estimate as lines of text, with everything that it assumes."""

from collections.abc import Sequence
from dataclasses import replace

from wsr.planning.cost import READ_BYTES_A_SECOND, Estimate
from wsr.planning.hardware import Hardware
from wsr.planning.memory import Memory, evaluation_memory, training_memory
from wsr.training.division import WHOLE
from wsr.training.job import Recipe
from wsr.training.memory import COPIES

_MOST_TEXTS = 20_000  # packed for a prediction of memory, at most


def told(
    estimate: Estimate,
    *,
    recipe: Recipe,
    point_texts: int = 0,
    notes: Sequence[str] = (),
    within_hours: float = 24.0,
    price: float | None = None,
) -> list[str]:
    """Returns an estimate as lines of text.

    Args:
      estimate: the workload, the encoder and the machine.
      recipe: how members are trained, which determines the memory of training.
      point_texts: number of texts that one point encodes, which determines the memory of evaluation; 0: no points.
      notes: the workload's assumptions.
      within_hours: time in which all of the work must be done, in hours.
      price: price of one chip for an hour, in any currency; None: no cost.
    """
    work, hardware, encoder = estimate.workload, estimate.hardware, estimate.encoder
    machines = estimate.machines(within_hours)
    lines = [
        f"machine:              {hardware.name}: {hardware.chips} x {_rate(hardware.chip.float32_flops)}, "
        f"{_gib(hardware.chip.memory_bytes)} each, {hardware.hosts} host{'s' if hardware.hosts > 1 else ''}",
        f"encoder:              {encoder.parameters / 1e6:.1f} million parameters, "
        f"{encoder.matrix_parameters / 1e6:.1f} million in matrix products",
        f"tokens:               {estimate.training_tokens:.3g} trained on, {estimate.encoded_tokens:.3g} encoded",
        f"operations:           {estimate.training_operations:.3g} in training, "
        f"{estimate.encoding_operations:.3g} in evaluation",
        f"disk:                 {_gib(estimate.disk_bytes)} for {work.members} members and their base; "
        f"similarity reads them once",
        *_memory_lines(estimate, recipe, point_texts),
        f"time:                 {_hours(estimate.hours)} on one machine: {_hours(estimate.training_hours)} training, "
        f"{_hours(estimate.encoding_hours)} evaluation, {_hours(estimate.similarity_hours)} similarity",
        f"machines:             {machines} to finish within {_hours(within_hours)}",
    ]
    if price is not None:
        cost = price * hardware.chips * estimate.hours
        lines.append(f"cost:                 {cost:,.0f} at {price:g} for a chip and hour")
    return [*lines, "assumed:", *(f"  - {line}" for line in (*notes, *_assumptions(estimate, price)))]


def _assumptions(estimate: Estimate, price: float | None) -> list[str]:
    chip, shares, encoder = estimate.hardware.chip, estimate.shares, estimate.encoder
    attention = "attention" if encoder.hidden else "no attention (the architecture is not known)"
    return [
        f"float32 products run in {chip.float32_runs_in}; their rate: {chip.source}",
        f"share of that rate that is reached: {100 * shares.training:.0f} % in training, "
        f"{100 * shares.evaluation:.0f} % in evaluation; "
        f"{shares.how}",
        f"each token takes 2 operations for each parameter in a matrix product, plus {attention}; "
        "a training step takes three times as many",
        "all chips have equal work and none waits for another, not even where several share a model",
        f"similarity reads members at {READ_BYTES_A_SECOND / 1e9:.0f} GB/s and hashes them at the same time, on one "
        "machine; inner products of thousands of members take longer, see docs/scale.md",
        "not counted: compiling, downloading, tokenising, fitting probes, saving, heads, and waiting for machines",
        *([] if price is not None else ["no price is known; give the price of a chip for an hour with --price"]),
    ]


def _memory_lines(estimate: Estimate, recipe: Recipe, point_texts: int) -> list[str]:
    encoder, hardware, work = estimate.encoder, estimate.hardware, estimate.workload
    if encoder.model is None:
        return [
            f"memory, training:     {_gib(COPIES * estimate.member_bytes)} plus activations, whose size is not known "
            "without the architecture"
        ]
    lines = []
    if encoder.model.reads != "text":
        return ["memory:               not predicted for a model of images"]
    if work.members:
        found, together, division = training_memory(encoder, hardware, recipe, work.length)
        parts, cut = division.shared_by, replace(division, shared_by=1)
        how = f", {recipe.batch_size} texts a step" + ("" if cut == WHOLE else f", {cut}")
        more = f", {_together(together, parts, hardware)}" if found.fits else ""
        lines.append(f"memory, training:     {_fit(found)} for a member{_shared(found, parts)}{how}{more}")
    if point_texts:
        found, parts = evaluation_memory(encoder, hardware, work.points, min(point_texts, _MOST_TEXTS), work.length)
        more = f", {_together(1, parts, hardware)}" if found.fits and parts > 1 else ""
        less = f" (with {_MOST_TEXTS} of {point_texts} texts)" if point_texts > _MOST_TEXTS else ""
        lines.append(f"memory, evaluation:   {_fit(found)} for a point at a time{_shared(found, parts)}{more}{less}")
    return lines


def _fit(memory: Memory) -> str:
    fits = "" if memory.fits else ": DOES NOT FIT,"
    return f"{_gib(memory.needed)} of {_gib(memory.budget)}{fits}"


def _shared(memory: Memory, parts: int) -> str:
    if parts == 1:
        return ""
    return (
        f", each model over {parts} chips"
        if memory.fits
        else f", even with each model over the {parts} chips of a host"
    )


def _together(number: int, parts: int, hardware: Hardware) -> str:
    if parts == 1:
        return f"{number} at a time on a chip"
    return f"{number * (hardware.chips // parts)} at a time on {hardware.chips} chips"


def _gib(size: float) -> str:
    return f"{size / 2**30:,.1f} GiB" if size >= 0.05 * 2**30 else f"{size / 2**20:,.1f} MiB"


def _hours(hours: float) -> str:
    if hours >= 48:
        return f"{hours:,.0f} hours"
    return f"{hours:.1f} hours" if hours >= 1 else f"{60 * hours:.1f} minutes"


def _rate(flops: float) -> str:
    return f"{flops / 1e12:.0f} TFLOP/s" if flops >= 1e12 else f"{flops / 1e9:.0f} GFLOP/s"
