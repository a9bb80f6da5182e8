"""How the training of a member is divided so that it fits the memory."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Division:
    """How the training of a member is divided: its batches, its backward pass, its weights.

    The result is that of undivided training up to rounding; with dropout, each piece of a batch draws its own.
    ``wsr.train`` chooses the division (``wsr.training.memory``).

    Example:
      >>> import wsr.training
      >>> print(wsr.training.Division(pieces=4, shared_by=2))
      each batch in 4 pieces, 2 devices to a member
    """

    pieces: int = 1
    """Number of equal pieces into which each batch is cut; their gradients are averaged. It divides the batch size."""
    rematerialised: bool = False
    """Whether the backward pass keeps only the inputs of each block and computes its activations again: less memory,
    and a third more time."""
    shared_by: int = 1
    """Number of devices that share the member, see ``wsr.models.cuts``."""

    def __str__(self) -> str:
        how = [f"each batch in {self.pieces} pieces"] * (self.pieces > 1)
        how += ["activations computed twice"] * self.rematerialised
        how += [f"{self.shared_by} devices to a member"] * (self.shared_by > 1)
        return ", ".join(how)


WHOLE = Division()
"""Whole batches, activations kept, each member on one device."""
