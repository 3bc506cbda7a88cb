"""Loops, branches, fusions and asynchronous forms in the text of optimized HLO, counted by hand."""

import pytest

from moe.cost import compiled
from moe.cost.hlo import Program, elements

# What XLA for TPU writes, shortened: no loop notes how long it is; the sum of a gradient of which
# each device keeps a part is a fusion; a gather that runs beside a product is named three times,
# on one channel, which other collectives use too.
TPU = """
HloModule jit_step

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%all-reduce-scatter.1 (input: f32[4,96]) -> f32[4,24] {
  %input = f32[4,96]{1,0:T(8,128)S(1)} parameter(0)
  %all-reduce.1 = f32[4,96]{1,0:T(8,128)} all-reduce(%input), channel_id=1, replica_groups={{0,4,8,12},{1,5,9,13}}, to_apply=%add
  %zero = u32[] constant(0)
  %id = u32[] partition-id()
  ROOT %slice.1 = f32[4,24]{1,0:T(8,128)S(1)} dynamic-slice(%all-reduce.1, %zero, %id), dynamic_slice_sizes={4,24}
}

%fused.start (p: bf16[24,2]) -> (bf16[24,2], bf16[96,2], s32[2]) {
  %p = bf16[24,2]{1,0} parameter(0)
  %all-gather.1 = bf16[96,2]{1,0} all-gather(%p), channel_id=4, replica_groups=mesh['x'=1,'y'=4,'z'=4] {'y'}, backend_config={"async_collective_fusion_config":{"flag_start":"-1"}}
  ROOT %start = (bf16[24,2]{1,0}, bf16[96,2]{1,0}, s32[2]{0:S(4)}) custom-call(%all-gather.1), custom_call_target="AsyncCollectiveStart"
}

%async_collective_fusion.1 (p: bf16[24,2], q: bf16[96,2], m: f32[8,8]) -> (f32[8,8], bf16[24,2], bf16[96,2]) {
  %p = bf16[24,2]{1,0} parameter(0)
  %m = f32[8,8]{1,0} parameter(2)
  %product = f32[8,8]{1,0} convolution(%m, %m), dim_labels=bf_io->bf
  %all-gather.2 = bf16[96,2]{1,0} all-gather(%p), channel_id=4, replica_groups=mesh['x'=1,'y'=4,'z'=4] {'y'}, backend_config={"async_collective_fusion_config":{"flag_start":"2"}}
  ROOT %t = (f32[8,8]{1,0}, bf16[24,2]{1,0}, bf16[96,2]{1,0}) tuple(%product, %p, %all-gather.2)
}

%fused.done (p: bf16[24,2], q: bf16[96,2]) -> bf16[96,2] {
  %p = bf16[24,2]{1,0} parameter(0)
  %q = bf16[96,2]{1,0} parameter(1)
  %all-gather.3 = bf16[96,2]{1,0} all-gather(%p), channel_id=4, replica_groups=mesh['x'=1,'y'=4,'z'=4] {'y'}, backend_config={"async_collective_fusion_config":{"flag_start":"2"}}
  ROOT %done = bf16[96,2]{1,0} custom-call(%p, %q, %all-gather.3), custom_call_target="AsyncCollectiveDone"
}

%body (p: (s32[], f32[4,96])) -> (s32[], f32[4,96]) {
  %p = (s32[]{:T(128)}, f32[4,96]{1,0}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%p), index=0
  %one = s32[] constant(1)
  %next = s32[]{:T(128)} add(%i, %one)
  %x = f32[4,96]{1,0} get-tuple-element(%p), index=1
  %part = f32[4,24]{1,0} fusion(%x), kind=kCustom, calls=%all-reduce-scatter.1
  %begun = (bf16[24,2]{1,0}, bf16[96,2]{1,0}, s32[2]{0:S(4)}) fusion(%x), kind=kCustom, calls=%fused.start
  %beside = (f32[8,8]{1,0}, bf16[24,2]{1,0}, bf16[96,2]{1,0}) fusion(%begun), kind=kOutput, calls=%async_collective_fusion.1
  %ended = bf16[96,2]{1,0} fusion(%beside), kind=kCustom, calls=%fused.done
  %other = bf16[96,2]{1,0} all-gather(%x), channel_id=4, replica_groups=[4,4]<=[4,4]T(1,0), dimensions={0}
  %whole = f32[4,96]{1,0} all-reduce(%x), channel_id=9, replica_groups={}, to_apply=%add
  %cut = f32[4,24]{1,0} dynamic-slice(%whole, %one, %i), dynamic_slice_sizes={4,24}
  ROOT %out = (s32[]{:T(128)}, f32[4,96]{1,0}) tuple(%next, %whole)
}

%condition (p: (s32[], f32[4,96])) -> pred[] {
  %p = (s32[]{:T(128)}, f32[4,96]{1,0}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%p), index=0
  %twelve = s32[]{:T(128)} constant(12)
  ROOT %less = pred[]{:T(512)} compare(%i, %twelve), direction=LT
}

%taken (x: f32[4,96]) -> f32[4,96] {
  %x = f32[4,96]{1,0} parameter(0)
  ROOT %y = f32[4,96]{1,0} all-reduce(%x), replica_groups={{0,1}}, to_apply=%add
}

%skipped (x: f32[4,96]) -> f32[4,96] {
  ROOT %x = f32[4,96]{1,0} parameter(0)
}

ENTRY %main (x: f32[4,96], b: pred[]) -> f32[4,96] {
  %x = f32[4,96]{1,0} parameter(0)
  %b = pred[] parameter(1)
  %zero = s32[] constant(0)
  %start = (s32[]{:T(128)}, f32[4,96]{1,0}) tuple(%zero, %x)
  %loop = (s32[]{:T(128)}, f32[4,96]{1,0}) while(%start), condition=%condition, body=%body
  %y = f32[4,96]{1,0} get-tuple-element(%loop), index=1
  ROOT %z = f32[4,96]{1,0} conditional(%b, %y, %y), true_computation=%taken, false_computation=%skipped
}
"""  # noqa: E501


def test_what_a_loop_runs_is_counted_as_often_as_its_condition_says_and_as_what_it_is():
    found = compiled.collectives(TPU)
    # Twelve times each, per run: the part of the fused sum, 4 * 24 floats; the gather that runs
    # beside a product, once; the other one on its channel; the sum that is read whole.
    assert compiled.table([one for one in found if one.sure]) == {
        "all-gather": (24, 24 * 96 * 2 * 2),
        "all-reduce": (12, 12 * 4 * 96 * 4),
        "reduce-scatter": (12, 12 * 4 * 24 * 4),
    }
    groups = {(one.kind, one.runs): one.group for one in found}
    assert groups["reduce-scatter", 12] == groups["all-gather", 12] == (0, 4, 8, 12)
    assert groups["all-reduce", 12] == ()  # all devices
    # The branch need not be taken.
    (perhaps,) = [one for one in found if not one.sure]
    assert (perhaps.kind, perhaps.runs, perhaps.bytes) == ("all-reduce", 1, 4 * 96 * 4)


@pytest.mark.parametrize(
    ("first", "step", "last", "direction", "trips"),
    [
        (0, 1, 12, "LT", 12),
        (1, 1, 12, "LT", 11),  # the first pass was taken out of the loop
        (0, 1, 12, "LE", 13),
        (0, 5, 12, "LT", 3),  # 0, 5, 10
        (11, -1, 0, "GE", 12),
        (11, -1, 0, "GT", 11),
        (0, 3, 12, "NE", 4),
        (5, 1, 5, "LT", 0),
        (0, 0, 12, "LT", None),  # does not end
        (0, 5, 12, "NE", None),
    ],
)
def test_a_loop_is_as_long_as_its_condition_says(first, step, last, direction, trips):
    text = TPU.replace("%zero = s32[] constant(0)", f"%zero = s32[] constant({first})")
    text = text.replace("%one = s32[] constant(1)", f"%one = s32[] constant({step})")
    text = text.replace("constant(12)", f"constant({last})")
    program = Program(text.replace("direction=LT", f"direction={direction}"))
    loop = program.computations[""]["loop"]
    assert program.trips("", loop) == trips
    runs = program.runs()
    assert runs["body", trips is not None] == (1 if trips is None else trips)


FUSED = """
%fused_compare (a: s32[], b: s32[]) -> pred[] {
  %a = s32[] parameter(0)
  %b = s32[] parameter(1)
  ROOT %more = pred[] compare(%b, %a), direction=GT
}

%fused_add (a: s32[]) -> s32[] {
  %a = s32[] parameter(0)
  %two = s32[] constant(2)
  ROOT %sum = s32[] add(%two, %a)
}

%body (p: (s32[], s32[])) -> (s32[], s32[]) {
  %p = (s32[], s32[]) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %n = s32[] get-tuple-element(%p), index=1
  %next = s32[] fusion(%i), kind=kLoop, calls=%fused_add
  ROOT %out = (s32[], s32[]) tuple(%next, %n)
}

%condition (p: (s32[], s32[])) -> pred[] {
  %p = (s32[], s32[]) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %n = s32[] get-tuple-element(%p), index=1
  ROOT %going = pred[] fusion(%i, %n), kind=kLoop, calls=%fused_compare
}

ENTRY %main (m: s32[]) -> s32[] {
  %m = s32[] parameter(0)
  %zero = s32[] constant(0)
  %eight = s32[] constant(8)
  %bound = s32[] copy(%eight)
  %start = (s32[], s32[]) tuple(%zero, %bound)
  %loop = (s32[], s32[]) while(%start), condition=%condition, body=%body
  ROOT %i = s32[] get-tuple-element(%loop), index=0
}
"""


def test_a_bound_that_the_loop_carries_is_followed_through_fusions():
    # 0, 2, 4, 6 are below 8, which is compared the other way round, in a fusion.
    program = Program(FUSED)
    assert program.trips("", program.computations[""]["loop"]) == 4
    unknown = Program(FUSED.replace("copy(%eight)", "copy(%m)"))
    assert unknown.trips("", unknown.computations[""]["loop"]) is None


@pytest.mark.parametrize(
    ("line", "kind", "size"),
    [
        # A start names what goes in, what comes out, and marks; a sum's only what comes out.
        ("(f32[8], f32[32]) all-gather-start(%x)", "all-gather", 128),
        ("((f32[8], f32[4]), (f32[32], f32[16])) all-gather-start(%x, %x)", "all-gather", 192),
        ("f32[8] all-reduce-start(%x)", "all-reduce", 32),
        ("(f32[8], f32[4]) all-reduce-start(%x, %x)", "all-reduce", 48),
        ("(f32[8], f32[8], u32[], u32[]) collective-permute-start(%x)", "collective-permute", 32),
        ("((f32[32]), f32[8], u32[]) reduce-scatter-start(%x)", "reduce-scatter", 32),
        ("((f32[8]), f32[8]) all-to-all-start(%x)", "all-to-all", 32),
    ],
)
def test_a_start_carries_what_comes_out(line, kind, size):
    text = f"ENTRY %main (x: f32[8]) -> f32[8] {{\n  %s = {line}, replica_groups={{{{0,1,2,3}}}}\n"
    text += f"  ROOT %d = f32[8] {kind}-done(%s)\n}}"
    (found,) = compiled.collectives(text)
    assert (found.kind, found.bytes, found.runs) == (kind, size, 1)


def test_a_wrapped_start_counts_once():
    text = """
%wrapped (x: f32[32]) -> f32[8] {
  %x = f32[32] parameter(0)
  ROOT %r = f32[8] reduce-scatter(%x), replica_groups={{0,1,2,3}}, dimensions={0}, to_apply=%add
}

ENTRY %main (x: f32[32]) -> f32[8] {
  %x = f32[32] parameter(0)
  %s = ((f32[32]), f32[8], u32[]) async-start(%x), calls=%wrapped
  %u = ((f32[32]), f32[8], u32[]) async-update(%s), calls=%wrapped
  ROOT %d = f32[8] async-done(%u), calls=%wrapped
}
"""
    assert compiled.table(compiled.collectives(text)) == {"reduce-scatter": (1, 32)}


@pytest.mark.parametrize(
    ("groups", "want"),
    [
        ("mesh['a'=1,'b'=4,'c'=2], device_ids=([2,4]T(1,0)) {'b'}", (0, 1, 2, 3)),
        ("mesh['a'=4,'b'=2] {'b'}", (0, 1)),
        ("mesh['a'=8] {'a':(2)2}", (0, 2)),  # of 8 = 2 * 2 * 2, the middle part
        ("mesh['a'=8] {'a':(1)4}", (0, 2, 4, 6)),
        ("[2,4]<=[8]", (0, 1, 2, 3)),
    ],
)
def test_who_exchanges(groups, want):
    text = "ENTRY %main (x: f32[8]) -> f32[8] {\n  ROOT %s = f32[8] all-reduce(%x), "
    (found,) = compiled.collectives(text + f"replica_groups={groups}, to_apply=%add\n}}")
    assert found.group == want


def test_a_tuple_is_taken_apart():
    assert elements("(s32[]{:T(128)}, (f32[2,3]{1,0:T(8,128)S(1)}, u32[]), /*index=2*/f32[4])") == [
        "s32[]{:T(128)}",
        "(f32[2,3]{1,0:T(8,128)S(1)}, u32[])",
        "f32[4]",
    ]
    assert elements("f32[2,3]{1,0}") == ["f32[2,3]{1,0}"]
