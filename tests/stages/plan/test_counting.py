"""FLOPs and bytes by hand, and beside what the compiler says."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from mllm_selector_jax import sharding
from mllm_selector_jax.models import mllm
from mllm_selector_jax.planning import counting
from mllm_selector_jax.training import train_step
from tests.training.test_work import WIDE, full_batch


def flops(fn, *shapes):
  given = [jax.ShapeDtypeStruct(shape, "float32") for shape in shapes]
  return counting.count_flops(jax.jit(fn).trace(*given).jaxpr)


def test_a_loop_counts_as_often_as_it_runs_and_a_branch_as_its_dearest():
  one = 2 * 3 * 5 * 5

  def loop(x, w):
    return jax.lax.scan(lambda x, _: (x @ w, None), x, None, length=7)[0]

  def branch(x, w):
    return jax.lax.cond(x.sum() > 0, lambda: x @ w @ w, lambda: x @ w)

  assert flops(loop, (3, 5), (5, 5)) == 7 * one
  assert flops(branch, (3, 5), (5, 5)) == 2 * one


def test_recomputation_and_both_gradients_count():
  def loss(x, w, remat):
    fn = (
      jax.checkpoint(lambda x: jnp.sin(jnp.sin(x @ w) @ w))
      if remat
      else (lambda x: jnp.sin(jnp.sin(x @ w) @ w))
    )
    return fn(x).sum()

  one = 2 * 3 * 5 * 5
  both = functools.partial(jax.grad, argnums=(0, 1))
  kept, again = (
    flops(both(functools.partial(loss, remat=remat)), (3, 5), (5, 5))
    for remat in (False, True)
  )
  assert kept == 6 * one  # two products, each with two gradients
  assert again == 8 * one


def test_what_each_shard_does_is_summed():
  mesh = sharding.make_mesh(4, 2, 1)
  with sharding.use(mesh):
    mapped = jax.shard_map(
      lambda x, w: x @ w,
      in_specs=(sharding.ROWS, PartitionSpec()),
      out_specs=sharding.ROWS,
    )
    assert flops(mapped, (16, 5), (5, 5)) == 2 * 16 * 5 * 5


def test_a_training_step_costs_what_the_compiler_counts():
  params = mllm.init(WIDE, 0)
  trained, frozen = train_step.split_params(params, "decoder")
  batch = full_batch()

  def loss(trained, frozen):
    return train_step.batch_loss(WIDE, {**frozen, **trained}, batch)

  traced = jax.jit(jax.grad(loss)).trace(trained, frozen)
  counted = traced.lower().compile().cost_analysis()["flops"]
  np.testing.assert_allclose(counting.count_flops(traced.jaxpr), counted, rtol=0.05)


HLO = """\
HloModule jit_step

%add (a: f32[], b: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%a, %b)
}

%all-reduce-scatter.1 (input: f32[8,4]) -> f32[2,4] {
  %input = f32[8,4]{1,0} parameter(0)
  %all-reduce.1 = f32[8,4]{1,0} all-reduce(%input), channel_id=1, to_apply=%add
  ROOT %cut = f32[2,4] dynamic-slice(%all-reduce.1, %place)
}

%body (arg: (s32[], bf16[2,4])) -> (s32[], bf16[2,4]) {
  %x = bf16[2,4]{1,0} get-tuple-element(%arg), index=1
  %gathered = bf16[8,4]{1,0:T(8,128)(2,1)} all-gather(%x), dimensions={0}
  %summed = f32[2,4] fusion(%big), kind=kCustom, calls=%all-reduce-scatter.1
}

%condition (arg.1: (s32[], bf16[2,4])) -> pred[] {
  %constant.1 = s32[]{:T(128)} constant(5)
  ROOT %lt = pred[] compare(%i, %constant.1), direction=LT
}

ENTRY %main (p0: f32[16]) -> f32[16] {
  %p0 = f32[16]{0} parameter(0)
  %w.1 = (s32[], bf16[2,4]) while(%t), condition=%condition, body=%body
  %w.2 = (s32[], f32[4]) while(%t), condition=%c, body=%other, \
backend_config={"known_trip_count":{"n":"3"}}
  %start = (f32[16]{0}, f32[16]{0}, u32[]) collective-permute-start(%p0), channel_id=1
  %done = f32[16]{0} collective-permute-done(%start)
}

%other (arg.2: (s32[], f32[4])) -> (s32[], f32[4]) {
  %y = f32[4]{0} get-tuple-element(%arg.2), index=1
  %cut.2 = f32[2]{0} reduce-scatter(%y), dimensions={0}, to_apply=%add
  %both = (f32[4]{0}, f32[4]{0}) all-to-all(%y, %y), replica_groups={{0,1}}
}
"""


def test_collectives_of_loops_and_fused_ones_are_counted():
  assert counting.count_collectives(HLO) == {
    "all-gather": 5 * 8 * 4 * 2,
    "reduce-scatter": 5 * 8 * 4 * 4 + 3 * 4 * 4,
    "all-to-all": 3 * 2 * 4 * 4,
    "collective-permute": 16 * 4 + 4,  # the flag of its start is not told apart
  }


def test_a_compiled_loop_gathers_its_weights_every_time():
  mesh = sharding.make_mesh(1, 8, 1)

  def fn(x, weights):
    def layer(x, w):
      w = sharding.constrain(w, (None, None))
      return sharding.constrain(jnp.tanh(x @ w), ("batch", None)), None

    return jax.lax.scan(layer, x, weights)[0]

  def given(shape, *spec):
    layout = NamedSharding(mesh, PartitionSpec(*spec))
    return jax.ShapeDtypeStruct(shape, "float32", sharding=layout)

  with sharding.use(mesh):
    shapes = given((16, 32), "fsdp"), given((6, 32, 32), None, "fsdp")
    compiled = jax.jit(fn).lower(*shapes).compile()
  found = counting.count_collectives(compiled.as_text())
  assert found == {"all-gather": 6 * 32 * 32 * 4}
