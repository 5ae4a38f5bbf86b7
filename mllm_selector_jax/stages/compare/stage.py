"""compare: makes every arm that is not there, and the comparison of all."""

from mllm_selector_jax import artifacts
from mllm_selector_jax.stages import base, candidates, fine_tune, flops
from mllm_selector_jax.stages.check import make_pool
from mllm_selector_jax.stages.compare import costs, summary
from mllm_selector_jax.stages.compare.arms import POOL, RANDOM, Plan, read_plan
from mllm_selector_jax.stages.compare.seeds import at_seed, in_workdir
from mllm_selector_jax.stages.context import Run, plain
from mllm_selector_jax.stages.evaluate import check_tasks, evaluate_arm
from mllm_selector_jax.stages.leakage import check_leakage
from mllm_selector_jax.stages.score import needs_seed, score
from mllm_selector_jax.stages.search.stage import check_search, search
from mllm_selector_jax.stages.seed import seed as make_seed
from mllm_selector_jax.stages.select import select_arm
from mllm_selector_jax.stages.times import keep_times, read_times
from mllm_selector_jax.stages.tune import kept_rows, tune_arm


def compare(run: Run) -> None:
  """Strategies x budgets x seeds from one base, with controls, in `compare/`."""
  plan = read_plan(run.cfg)
  for arm in plan.arms:
    own = plan.changes(arm) | {"strategy": plan.strategy(arm)}
    candidates.check_names(run, **own)
  check_search(run)
  check_tasks(run)
  base.check_model(run)
  if not plan.fresh_pools:
    with in_workdir(run, run.workdir.at_seed(plan.seeds[0], False)):
      make_pool(run)
      candidates.check_pool(run)
      check_leakage(run)
  for place, seed in enumerate(plan.seeds):
    count = f"{place + 1} of {len(plan.seeds)}"
    run.say(f"compare: seed {seed} ({count}), {len(plan.arms)} arms")
    run.seconds.clear()
    with at_seed(run, plan, seed):
      made = _make_seed(run, plan, seed)
    # A table of the seeds so far, where there is news, since a seed may take a day.
    if made or place == len(plan.seeds) - 1:
      _summarise(run, plan._replace(seeds=plan.seeds[: place + 1]))


def _make_seed(run: Run, plan: Plan, seed: int) -> bool:
  """Makes what one seed lacks; whether it lacked anything."""
  made = False
  try:
    if plan.fresh_pools:
      make_pool(run)
      candidates.check_pool(run)
      check_leakage(run)
    for arm in plan.arms:
      candidates.check_lists(run, **plan.changes(arm))
    if needs_seed(run):
      make_seed(run)
    score(run)
    made |= keep_times(run, run.workdir.path)
    searched, steps = search(run), None
    whole = POOL.name(seed)  # its rows are counted even if not tuned on
    select_arm(run, whole, RANDOM, POOL.budget)
    if plan.match == "steps":
      steps = flops.count_steps(len(kept_rows(run, whole)), run.cfg.tune)
    for arm in plan.arms:
      name = arm.name(seed)
      strategy, changes = plan.strategy(arm), plan.changes(arm)
      if arm.strategy == run.cfg.select.strategy:
        changes = searched
      select_arm(run, name, strategy, arm.budget, **changes)
      tune_arm(run, name, steps)
      evaluate_arm(run, name)
      made |= keep_times(run, run.workdir.path)
  finally:
    keep_times(run, run.workdir.path)
  return made


def _summarise(run: Run, plan: Plan) -> None:
  work, inputs = run.workdir, {}
  for seed in plan.seeds:
    own = work.at_seed(seed, plan.fresh_pools)
    inputs[f"scores {seed}"] = own.scores.digest()
    for arm in plan.arms:
      name = arm.name(seed)
      inputs[f"{name} selection"] = work.selection(name).digest()
      inputs[f"{name} tuned"] = work.tuned(name).digest()
      inputs[f"{name} evaluation"] = work.evaluation(name).digest()
  config = {
    "arms": [arm.name(seed) for seed in plan.seeds for arm in plan.arms],
    "match": plan.match,
    "fresh_pools": plan.fresh_pools,
    "variants": plan.variants,
    "seed": fine_tune.recipe_config(run.cfg.seed),
    "tune": fine_tune.recipe_config(run.cfg.tune),
    "title": run.cfg.report.title,
  }
  recipe = run.recipe("compare", plain(config), inputs)

  def build(folder):
    from mllm_selector_jax.stages.compare import page, plot

    results = summary.summarise(run, plan)
    spent = costs.find_costs(run, plan, results, read_times(work.path))
    text = page.format_markdown(results, spent)
    picture = plot.draw(results)
    artifacts.write_json(folder / "results.json", results)
    artifacts.write_json(folder / "costs.json", spent)
    artifacts.write_text(folder / "table.md", text)
    artifacts.write_table(folder / "table.parquet", summary.make_table(results))
    artifacts.write_bytes(folder / "accuracy.png", picture)
    html = page.render(results, spent, picture, run.cfg.report.title)
    artifacts.write_text(folder / "compare.html", html)
    run.say(f"compare: over {len(plan.seeds)} seeds so far\n\n{text}")

  run.make(work.comparison, recipe, build)
  run.say(f"compare: {work.comparison.path / 'compare.html'} shows it")
