"""The one cost model: from counts, shapes and a machine to operations, bytes, hours and machines. No measuring here."""

import math
from dataclasses import dataclass

from wsr.planning.encoder import Encoder
from wsr.planning.hardware import Hardware


@dataclass(frozen=True)
class Workload:
    """What is to be done."""

    members: int
    """Models to fine-tune."""
    trained_texts: float
    """Texts that all members together read while they are trained, each as often as it is read."""
    length: float
    """Tokens of a text."""
    points: int = 0
    """Points to evaluate exactly."""
    scored_texts: float = 0.0
    """Texts that all points together encode."""
    checked_texts: float = 0.0
    """Texts that are encoded for early stopping."""


@dataclass(frozen=True)
class Shares:
    """Of a machine's rate of matrix products, what the work reaches, counting operations on real tokens only."""

    training: float
    evaluation: float
    how: str


MEASURED = Shares(0.48, 0.85, "measured with MiniLM on two cores: benchmarks/results/cpu/{finetuning,evaluation}.json")
ASSUMED = Shares(0.40, 0.40, "assumed: not measured on this kind of machine")
READ_BYTES_A_SECOND = 1.0e9
"""Similarity from disk on two cores, page cache empty: benchmarks/results/cpu/similarity.json."""


@dataclass(frozen=True)
class Estimate:
    """What a workload takes."""

    workload: Workload
    encoder: Encoder
    hardware: Hardware

    @property
    def shares(self) -> Shares:
        """Measured on CPUs; assumed elsewhere."""
        return MEASURED if self.hardware.chip.platform == "cpu" else ASSUMED

    @property
    def training_tokens(self) -> float:
        """Tokens that members are trained on, each as often as it is read."""
        return self.workload.trained_texts * self.workload.length

    @property
    def encoded_tokens(self) -> float:
        """Tokens that points, and checks of members, only encode."""
        return (self.workload.scored_texts + self.workload.checked_texts) * self.workload.length

    @property
    def training_operations(self) -> float:
        """Floating-point operations of the training steps."""
        return self.encoder.training_operations(self.workload.trained_texts, self.workload.length)

    @property
    def encoding_operations(self) -> float:
        """Floating-point operations of the forward passes."""
        work = self.workload
        return self.encoder.operations(work.scored_texts + work.checked_texts, work.length)

    @property
    def training_hours(self) -> float:
        """Hours of one machine."""
        return self.training_operations / (self.shares.training * self.hardware.flops) / 3600

    @property
    def encoding_hours(self) -> float:
        """Hours of one machine."""
        return self.encoding_operations / (self.shares.evaluation * self.hardware.flops) / 3600

    @property
    def member_bytes(self) -> float:
        """A member on disk, float32."""
        return 4 * self.encoder.parameters

    @property
    def disk_bytes(self) -> float:
        """The members and their base."""
        return (self.workload.members + 1) * self.member_bytes

    @property
    def similarity_hours(self) -> float:
        """One pass over all members."""
        return self.workload.members * self.member_bytes / READ_BYTES_A_SECOND / 3600

    @property
    def hours(self) -> float:
        """Hours of one machine for all of it."""
        return self.training_hours + self.encoding_hours + self.similarity_hours

    def machines(self, within_hours: float) -> int:
        """How many such machines do it within so many hours; members and points are dealt out whole.

        More machines than there is work for would wait; the slowest share is then one member long.
        """
        wanted = max(1, math.ceil(self.hours / within_hours))
        return min(wanted, max(self.workload.members, self.workload.points, 1))
