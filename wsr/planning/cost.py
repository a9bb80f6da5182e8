"""The cost model: computes operations, bytes, hours and machines from counts, shapes and a machine's rates."""

import math
from dataclasses import dataclass

from wsr.planning.encoder import Encoder
from wsr.planning.hardware import Hardware


@dataclass(frozen=True)
class Workload:
    """Counts of the work to do."""

    members: int
    """Number of models to fine-tune."""
    trained_texts: float
    """Number of texts that all members together read in training; a text counts once for each pass over it."""
    length: float
    """Mean length of a text, in tokens."""
    points: int = 0
    """Number of points to evaluate exactly."""
    scored_texts: float = 0.0
    """Number of texts that all points together encode."""
    checked_texts: float = 0.0
    """Number of texts that early stopping encodes."""


@dataclass(frozen=True)
class Shares:
    """Fractions of a machine's matrix-product rate that the work reaches, counting operations on real tokens only."""

    training: float
    evaluation: float
    how: str
    """Where the fractions come from."""


MEASURED = Shares(0.44, 0.87, "measured with MiniLM on two cores: benchmarks/results/cpu/{finetuning,evaluation}.json")
ASSUMED = Shares(0.40, 0.40, "assumed: not measured on this kind of machine")
COMPILED = {"minilm": 10.6e6, "roberta-base": 84.9e6}
"""Parameters in matrix products of the encoders that were compiled for absent TPUs."""
READ_BYTES_A_SECOND = 1.0e9
"""Rate at which similarity reads members from disk, measured on two cores with an empty page cache:
benchmarks/results/cpu/similarity.json."""


@dataclass(frozen=True)
class Estimate:
    """The operations, bytes, hours and machines that a workload takes."""

    workload: Workload
    encoder: Encoder
    hardware: Hardware

    @property
    def shares(self) -> Shares:
        """The fractions of the machine's rate.

        Those of CPUs are measured. Those of TPUs are what their compiler expects for the compiled encoder nearest in
        size. All others are assumed, and so are those of programs that were not compiled.
        """
        chip, parameters = self.hardware.chip, self.encoder.matrix_parameters
        if chip.platform == "cpu":
            return MEASURED
        if not chip.expected or parameters <= 0:
            return ASSUMED
        near = min(COMPILED, key=lambda name: abs(math.log(COMPILED[name] / parameters)))
        expected = chip.expected[near]
        how = (
            f"expected by the chip's compiler for {near} in steps of 4,096 tokens, without dispatch and transfers "
            "(benchmarks/results/tpu_ahead_of_time.jsonl); steps of fewer tokens reach less"
        )
        return Shares(expected.training, expected.evaluation, how)

    @property
    def training_tokens(self) -> float:
        """Number of tokens that members are trained on; a token counts once for each pass over it."""
        return self.workload.trained_texts * self.workload.length

    @property
    def encoded_tokens(self) -> float:
        """Number of tokens that evaluation and early stopping encode."""
        return (self.workload.scored_texts + self.workload.checked_texts) * self.workload.length

    @property
    def training_operations(self) -> float:
        """Number of floating-point operations of the training steps."""
        return self.encoder.training_operations(self.workload.trained_texts, self.workload.length)

    @property
    def encoding_operations(self) -> float:
        """Number of floating-point operations of evaluation and early stopping."""
        work = self.workload
        return self.encoder.operations(work.scored_texts + work.checked_texts, work.length)

    @property
    def training_hours(self) -> float:
        """Hours of training on one machine."""
        return self.training_operations / (self.shares.training * self.hardware.flops) / 3600

    @property
    def encoding_hours(self) -> float:
        """Hours of evaluation and early stopping on one machine."""
        return self.encoding_operations / (self.shares.evaluation * self.hardware.flops) / 3600

    @property
    def member_bytes(self) -> float:
        """Bytes of a member on disk, in float32."""
        return 4 * self.encoder.parameters

    @property
    def disk_bytes(self) -> float:
        """Bytes of the members and their base on disk."""
        return (self.workload.members + 1) * self.member_bytes

    @property
    def similarity_hours(self) -> float:
        """Hours of one pass over all members, which similarity needs."""
        return self.workload.members * self.member_bytes / READ_BYTES_A_SECOND / 3600

    @property
    def hours(self) -> float:
        """Hours of all of the work on one machine."""
        return self.training_hours + self.encoding_hours + self.similarity_hours

    def machines(self, within_hours: float) -> int:
        """Returns the number of machines that finish within ``within_hours``, or the largest that still helps.

        A member or a point runs on one machine: further machines would have nothing to do.
        """
        wanted = max(1, math.ceil(self.hours / within_hours))
        return min(wanted, max(self.workload.members, self.workload.points, 1))
