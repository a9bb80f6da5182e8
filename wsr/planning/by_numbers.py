"""What a population of one's own would take on a machine, from a handful of numbers."""

from wsr.errors import WsrError
from wsr.planning.cost import Estimate, Workload
from wsr.planning.encoder import by_number, find_encoder
from wsr.planning.hardware import find
from wsr.planning.told import told
from wsr.training.recipe import Recipe


def plan(
    *,
    length: float,
    base: str | None = None,
    parameters: float | None = None,
    members: int = 0,
    texts: int = 0,
    epochs: float = Recipe.epochs,
    batch_size: int = Recipe.batch_size,
    points: int = 0,
    texts_a_point: int = 0,
    hardware: str = "here",
    within_hours: float = 24.0,
    price: float | None = None,
) -> list[str]:
    """Returns lines that say what training and evaluation would take: operations, memory, disk, hours, machines.

    Args:
      length: mean tokens of a text.
      base: a checkpoint whose config is at hand; or
      parameters: how many parameters a model has.
      members: models to fine-tune.
      texts: texts that a member is fine-tuned on.
      epochs: passes over them.
      batch_size: texts of a step.
      points: points to evaluate.
      texts_a_point: texts of the probe and test split together.
      hardware: a machine by name, see ``wsr.planning.hardware``; "here" measures this one.
      within_hours: when all of the work has to be done.
      price: of a chip for an hour, in any currency.

    Raises:
      WsrError: neither or both of ``base`` and ``parameters``, or an unknown machine.

    Example:
      >>> import wsr
      >>> wsr.plan(members=280, texts=2000, epochs=10, length=64, parameters=125e6, hardware="v5e-8")[0][:27]
      'machine:              v5e-8'
    """
    if bool(base) == bool(parameters):
        raise WsrError("plan: give either a base or a number of parameters")
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
        recipe=Recipe(batch_size=batch_size),
        point_texts=texts_a_point if points else 0,
        within_hours=within_hours,
        price=price,
    )
