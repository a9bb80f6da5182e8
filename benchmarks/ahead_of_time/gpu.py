"""An H100 as the compiler knows it, and what a program compiled for it tells: types of products, bytes, memory.

JAX compiles for an NVIDIA GPU that is not there, from a description of it. Unlike the compiler of TPUs, it tells no
expected time. But the bytes that the launched kernels read and write bound their time from below, at the rate of the
memory, as the operations do at the rate of the products. It chooses no algorithm by trial, as it would on a GPU.
"""

import os
import re
from collections import Counter
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from benchmarks.ahead_of_time.text import Instruction, Program

NAME = "h100"
_BYTES = {"f64": 8, "f32": 4, "s32": 4, "u32": 4, "bf16": 2, "f16": 2, "s8": 1, "u8": 1, "pred": 1}
_LAUNCH_NOTHING = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while"}
_PRODUCTS = ("__cublas", "__cudnn")  # beginnings of the names of the libraries' products
_ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    # Products of Triton are chosen by trial on the GPU. Command buffers hide the launched kernels.
    "XLA_FLAGS": "--xla_gpu_enable_triton_gemm=false --xla_gpu_autotune_level=0 --xla_gpu_enable_command_buffer=",
}
_TARGET = """
platform_name: "CUDA"
device_description_str: "NVIDIA H100 80GB HBM3"
runtime_version { major: 12 minor: 8 patch: 0 }
dnn_version_info { major: 9 minor: 7 }
gpu_device_info {
  cuda_compute_capability { major: 9 }
  core_count: 132
  fpus_per_core: 128
  clock_rate_ghz: 1.98
  device_memory_size: 84929347584
  memory_bandwidth: 3352320000000
  l2_cache_size: 52428800
  threads_per_warp: 32
  threads_per_block_limit: 1024
  threads_per_core_limit: 2048
  registers_per_block_limit: 65536
  registers_per_core_limit: 65536
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
}
"""
"""What a CUDA driver says of an H100 SXM, in the form of XLA's GpuTargetConfigProto."""


@dataclass(frozen=True)
class CompiledForGpu:
    """One program on one H100."""

    gigabytes: float
    """Read and written by the launched kernels, in 10^9 bytes; a gather reads what it returns."""
    milliseconds_by_bytes: float
    """Time in which the memory moves them."""
    kernels: int
    """Number of launched kernels."""
    products: dict[str, int]
    """Number of matrix products by the types of their operands and result."""
    temporary_gib: float
    """Memory besides arguments and results."""
    arguments_gib: float
    """Memory of the arguments."""


def use_compiler() -> None:
    """Lets JAX compile for an absent H100; call it before anything imports JAX."""
    os.environ.update(_ENVIRONMENT)


def mesh() -> Any:
    """Returns a mesh of one absent H100 with the engine's axes: ``points``, ``texts`` and ``model``."""
    from jax._src import xla_bridge
    from jax.experimental import topologies
    from jax.sharding import AxisType, Mesh

    found = xla_bridge.canonicalize_platform
    # JAX asks which GPUs there are to tell whether "gpu" means CUDA (github.com/jax-ml/jax/issues/23971).
    xla_bridge.canonicalize_platform = lambda platform: "cuda" if platform == "gpu" else found(platform)
    described = topologies.get_topology_desc(platform="cuda", topology_name="", topology="1x1x1", target_config=_TARGET)
    return Mesh(np.array(described.devices).reshape(1, 1, 1), ("points", "texts", "model"), (AxisType.Auto,) * 3)


def compile_for_gpu(lowered: Any) -> CompiledForGpu:
    """Compiles a lowered program and returns what it tells."""
    from wsr.planning.hardware import CHIPS

    compiled = lowered.compile()
    program, memory = Program(compiled.as_text()), compiled.memory_analysis()
    launched = [own for own in program.instructions() if own.opcode not in _LAUNCH_NOTHING]
    results = {own.name: own.result for own in program.instructions()}
    moved = sum(_moved_bytes(own, results, program) for own in launched)
    return CompiledForGpu(
        gigabytes=moved / 1e9,
        milliseconds_by_bytes=1e3 * moved / CHIPS[NAME].bandwidth,
        kernels=len(launched),
        products=dict(Counter(filter(None, (_types(own, results) for own in launched)))),
        temporary_gib=memory.temp_size_in_bytes / 2**30,
        arguments_gib=memory.argument_size_in_bytes / 2**30,
    )


def _moved_bytes(instruction: Instruction, results: dict[str, str], program: Program) -> int:
    """Returns the bytes that a kernel reads and writes."""
    written = _bytes(_without_workspace(instruction))
    if any(inner.opcode == "gather" for inner in program.within(instruction)):
        return 2 * written
    return written + sum(_bytes(results.get(name, "")) for name in instruction.operands)


def _types(instruction: Instruction, results: dict[str, str]) -> str:
    """Returns the types of a product's operands and result, such as "bf16 x bf16 -> f32"; empty for other kernels."""
    target = re.search(r'custom_call_target="([^"]*)"', instruction.line)
    if not target or not target[1].startswith(_PRODUCTS):
        return ""
    left, right = (results[name].split("[")[0] for name in instruction.operands[:2])
    return f"{left} x {right} -> {_without_workspace(instruction).strip('(').split('[')[0]}"


def _without_workspace(instruction: Instruction) -> str:
    """Returns the result without the scratch memory, in bytes, that a library's call returns beside it."""
    return re.sub(r"s8\[\d+\]", "", instruction.result) if instruction.opcode == "custom-call" else instruction.result


def _bytes(shapes: str) -> int:
    return sum(
        _BYTES[kind] * prod(int(size) for size in sizes.split(",") if size)
        for kind, sizes in re.findall(rf"\b({'|'.join(_BYTES)})\[([\d,]*)\]", shapes)
    )
