"""Compiled programs, read from their text: bytes of kernels, types of products, and kinds of work."""

import re

import pytest

from benchmarks.ahead_of_time import gpu, work
from benchmarks.ahead_of_time.text import Program

TEXT = """HloModule jit_encode

FileNames
1 "/here/wsr/models/layers/attention.py"
2 "/here/wsr/models/layers/dense.py"
3 "/here/flax/nnx/nn/normalization.py"

FunctionNames
1 "f"

FileLocations
1 {file_name_id=1 function_name_id=1 line=1 end_line=1 column=1 end_column=2}
2 {file_name_id=2 function_name_id=1 line=1 end_line=1 column=1 end_column=2}
3 {file_name_id=3 function_name_id=1 line=1 end_line=1 column=1 end_column=2}

StackFrames
1 {file_location_id=1 parent_frame_id=1}
2 {file_location_id=2 parent_frame_id=1}
3 {file_location_id=3 parent_frame_id=1}

%dense (a: bf16[4,8], b: bf16[8,2]) -> f32[4,2] {
  %a = bf16[4,8]{1,0} parameter(0)
  %b = bf16[8,2]{1,0} parameter(1)
  ROOT %dot.1 = f32[4,2]{1,0} dot(%a, %b), lhs_contracting_dims={1}, metadata={op_name="dot" stack_frame_id=2}
}

%look_up (t: f32[1000,8], i: s32[4]) -> f32[4,8] {
  %t = f32[1000,8]{1,0} parameter(0)
  %i = s32[4]{0} parameter(1)
  ROOT %gather.1 = f32[4,8]{1,0} gather(%t, %i), metadata={op_name="gather" stack_frame_id=2}
}

%turn (c: f32[4,8]) -> f32[8,4] {
  %c = f32[4,8]{1,0} parameter(0)
  ROOT %transpose.1 = f32[8,4]{1,0} transpose(%c), dimensions={1,0}
}

ENTRY %main (x: bf16[4,8], y: bf16[8,2], t: f32[1000,8], i: s32[4]) -> f32[4,2] {
  %x = bf16[4,8]{1,0} parameter(0)
  %y = bf16[8,2]{1,0} parameter(1)
  %t = f32[1000,8]{1,0} parameter(2)
  %i = s32[4]{0} parameter(3)
  %product = f32[4,2]{1,0:T(8,128)} fusion(%x, %y), calls=%dense, metadata={op_name="add" stack_frame_id=1}
  %looked_up = f32[4,8]{1,0} fusion(%t, %i), kind=kLoop, calls=%look_up, metadata={op_name="gather" stack_frame_id=2}
  %turned = f32[8,4]{1,0} fusion(%looked_up), kind=kLoop, calls=%turn
  %call = (f32[4,2]{1,0}, s8[4096]{0}) custom-call(%x, %y), custom_call_target="__cublas$gemm"
  %scores = f32[4,2]{1,0} get-tuple-element(%call), index=0
  %softmax = f32[4,2]{1,0} exponential(%scores), metadata={op_name="exp" stack_frame_id=1}
  ROOT %norm = f32[4,2]{1,0} add(%softmax, %product), metadata={op_name="add" stack_frame_id=3}
}
"""


class Lowered:
    """A lowered program whose compiled text is known."""

    temp_size_in_bytes = argument_size_in_bytes = 2**30

    def compile(self):
        return self

    def memory_analysis(self):
        return self

    def as_text(self):
        return TEXT


def test_kernels_of_a_gpu_read_their_operands_and_write_their_results():
    found = gpu.compile_for_gpu(Lowered())
    x, y, small, looked_up = 4 * 8 * 2, 8 * 2 * 2, 4 * 2 * 4, 4 * 8 * 4
    product = call = x + y + small
    moved = product + 2 * looked_up + 2 * looked_up + call + 2 * small + 3 * small
    assert found.gigabytes == pytest.approx(moved / 1e9)
    assert found.milliseconds_by_bytes == pytest.approx(1e3 * moved / 3.35e12)
    assert (found.kernels, found.products) == (6, {"bf16 x bf16 -> f32": 1})
    assert (found.temporary_gib, found.arguments_gib) == (1, 1)


def test_work_is_told_by_what_a_kernel_computes_and_by_the_source_it_comes_from():
    program = Program(TEXT)
    kinds = {own.name: work.kind_of(own, program) for own in program.instructions() if own.opcode != "parameter"}
    assert kinds["product"] == work.PRODUCTS  # though its last instruction is of attention
    assert kinds["turned"] == work.COPIES
    assert kinds["softmax"] == work.ATTENTION
    assert kinds["norm"] == kinds["looked_up"] == work.ELEMENTWISE


def test_a_turn_of_a_loop_is_its_body_alone():
    text = TEXT.replace(
        "ENTRY", "%body (c: f32[4,2]) -> f32[4,2] {\n  ROOT %two = f32[4,2]{1,0} add(%c, %c)\n}\n\nENTRY"
    )
    program = Program(text.replace("exponential(%scores)", "while(%scores), condition=%turn, body=%body"))
    assert [own.name for own in program.in_loops()] == ["two"]
    assert {own.name for own in program.instructions()} > {"two", "softmax", "norm"}


@pytest.mark.parametrize("file", ["attention", "blockwise_attention", "disentangled_attention"])
def test_each_file_of_attention_is_attention(file):
    program = Program(TEXT.replace("layers/attention.py", f"layers/{file}.py"))
    kinds = {own.name: work.kind_of(own, program) for own in program.instructions()}
    assert kinds["softmax"] == work.ATTENTION


def test_the_body_of_a_loop_counts_as_often_as_it_is_known_to_run():
    one = 'backend_config={"estimated_cycles":"%s"}'
    text = f"""
%inner (a: f32[2]) -> f32[2] {{
  %b = f32[2] add(%a, %a), {one % 3}
}}
%outer (a: f32[2]) -> f32[2] {{
  %c = f32[2] while(%a), condition=%five, body=%inner
  %d = f32[2] add(%c, %c), {one % 7}
}}
%five (a: f32[2]) -> pred[] {{
  %h = s32[]{{:T(128)}} constant(5)
  ROOT %i = pred[] compare(%n, %h), direction=LT
}}
%until (a: f32[2]) -> pred[] {{
  %j = s32[] constant(100)
  %k = pred[] compare(%n, %j), direction=LT
  ROOT %l = pred[] and(%k, %m)
}}
ENTRY %main (a: f32[2]) -> f32[2] {{
  %e = f32[2] while(%a), condition=%five, body=%outer
  %f = f32[2] while(%e), condition=%until, body=%inner
  %g = f32[2] add(%f, %f), {one % 11}
}}
"""
    costs = (re.search(r'estimated_cycles":"(\d+)"', own.line) for own in Program(text).instructions())
    assert sum(int(cost[1]) for cost in costs if cost) == 5 * (5 * 3 + 7) + 3 + 11
