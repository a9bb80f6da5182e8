"""Estimates from a handful of numbers what a population would take on a machine."""

from wsr.errors import WsrError
from wsr.planning.cost import Estimate, Workload
from wsr.planning.encoder import by_number, find_encoder
from wsr.planning.hardware import find
from wsr.planning.told import told
from wsr.training.recipe import Mode, Recipe


def plan(
    *,
    length: float,
    base: str | None = None,
    parameters: float | None = None,
    members: int = 0,
    texts: int = 0,
    epochs: float = Recipe.epochs,
    batch_size: int = Recipe.batch_size,
    mode: Mode = Recipe.mode,
    points: int = 0,
    texts_a_point: int = 0,
    hardware: str = "here",
    within_hours: float = 24.0,
    price: float | None = None,
) -> list[str]:
    """Returns lines that say what training and evaluation would take: operations, memory, disk, hours and machines.

    Args:
      length: mean length of a text, in tokens.
      base: a checkpoint whose config is known: a published name, a registered name or a folder. Give this or
        ``parameters``.
      parameters: number of parameters of a model, if there is no ``base``.
      members: number of models to fine-tune.
      texts: number of texts that each member is fine-tuned on.
      epochs: number of passes over them.
      batch_size: texts in a training step.
      mode: which parameters are trained, see ``wsr.Recipe``; it determines the memory of training.
      points: number of points to evaluate.
      texts_a_point: texts in the probe and test splits together.
      hardware: name of a machine, for example "v5e-8" or "h100-2", see ``wsr.planning.hardware``; "here" measures this
        one.
      within_hours: time in which all of the work must be done, in hours; it determines the number of machines.
      price: price of one chip for an hour, in any currency; None: no cost.

    Raises:
      WsrError: neither or both of ``base`` and ``parameters`` are given, another mode than "full" is given without a
        base, or the machine or the base is unknown.

    Example:
      >>> import wsr
      >>> lines = wsr.plan(members=280, texts=2000, epochs=10, length=64, parameters=125e6, hardware="v5e-8")
      >>> print("\\n".join(line for line in lines if line.startswith(("encoder", "tokens", "disk"))))
      encoder:              125.0 million parameters, 125.0 million in matrix products
      tokens:               3.58e+08 trained on, 0 encoded
      disk:                 130.9 GiB for 280 members and their base; similarity reads them once
    """
    if bool(base) == bool(parameters):
        raise WsrError("plan: give either a base or a number of parameters, not both or neither")
    if parameters and mode != "full":
        raise WsrError(
            f"plan: mode {mode} trains parts of an architecture; give a base in place of a number of parameters"
        )
    workload = Workload(
        members=members,
        trained_texts=members * texts * epochs,
        length=length,
        points=points,
        scored_texts=points * texts_a_point,
    )
    encoder = find_encoder(base) if base else by_number(float(parameters or 0))
    return told(
        Estimate(workload, encoder, find(hardware)),
        recipe=Recipe(batch_size=batch_size, mode=mode),
        point_texts=texts_a_point if points else 0,
        notes=[] if mode == "full" else [f"a member of mode {mode} counts as one of mode full, but for its memory"],
        within_hours=within_hours,
        price=price,
    )
