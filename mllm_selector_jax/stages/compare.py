"""compare: makes the arms that are missing, and compares all of them."""

from mllm_selector_jax.comparison import against_reference, comparison_summary, costs
from mllm_selector_jax.comparison.comparison_plan import (
  INCUMBENT,
  POOL,
  Plan,
  read_plan,
)
from mllm_selector_jax.comparison.seeds import at_seed
from mllm_selector_jax.inputs import base_model
from mllm_selector_jax.pipeline import candidates, flops
from mllm_selector_jax.pipeline.check_pool import make_pool
from mllm_selector_jax.pipeline.evaluate_arm import check_tasks, evaluate_arm
from mllm_selector_jax.pipeline.leakage import check_leakage
from mllm_selector_jax.pipeline.score_pool import make_scores
from mllm_selector_jax.pipeline.scored_models import needs_seed
from mllm_selector_jax.pipeline.search.search_arms import read_own, search
from mllm_selector_jax.pipeline.search.search_space import check_search
from mllm_selector_jax.pipeline.select_arm import select_arm
from mllm_selector_jax.pipeline.tune_arm import kept_rows, tune_arm
from mllm_selector_jax.pipeline.tuning_recipe import check_adapters, recipe_config
from mllm_selector_jax.runs import artifacts
from mllm_selector_jax.runs.context import Run, plain
from mllm_selector_jax.runs.times import keep_times, read_times
from mllm_selector_jax.stages.seed import seed as make_seed


def compare(run: Run) -> None:
  """Compares strategies, budgets and seeds with the controls, and makes `compare/`."""
  plan = read_plan(run.cfg)
  for arm in plan.arms:
    settings = plan.changes(arm) | {"strategy": plan.strategy(arm)}
    settings["budget"] = plan.budget(arm)
    candidates.check_names(run, **settings)
  check_search(run)
  check_tasks(run)
  check_adapters(base_model.check_model(run), run.cfg)
  if not plan.fresh_pools:
    first = run.at(run.workdir.at_seed(plan.seeds[0], False))
    make_pool(first)
    candidates.check_pool(first)
    check_leakage(first)
  for place, seed in enumerate(plan.seeds):
    count = f"{place + 1} of {len(plan.seeds)}"
    run.say(f"compare: seed {seed} ({count}), {len(plan.arms)} arms")
    run.seconds.clear()
    made = _make_seed(at_seed(run, plan, seed), plan, seed)
    # A seed may take a day, so the seeds so far are summarised after each new one.
    if made or place == len(plan.seeds) - 1:
      _summarise(run, plan._replace(seeds=plan.seeds[: place + 1]))


def _make_seed(run: Run, plan: Plan, seed: int) -> bool:
  """Makes the artifacts that one seed lacks, and returns whether there were any."""
  made = False
  try:
    if plan.fresh_pools:
      make_pool(run)
      candidates.check_pool(run)
      check_leakage(run)
    for arm in plan.arms:
      changes = plan.changes(arm) | {"strategy": plan.strategy(arm)}
      candidates.check_lists(run, budget=plan.budget(arm), **changes)
    if needs_seed(run):
      make_seed(run)
    make_scores(run)
    made |= keep_times(run, run.workdir.path)
    searched, steps = search(run), None
    # Their rows are needed, even if no model is tuned on the full pool.
    for arm in dict.fromkeys((POOL, plan.longest())):
      select_arm(
        run, arm.name(seed), plan.strategy(arm), plan.budget(arm), **plan.changes(arm)
      )
    if plan.match == "steps":
      rows = kept_rows(run, plan.longest().name(seed))
      steps = flops.count_steps(len(rows), run.cfg.tune)
    for arm in plan.arms:
      name = arm.name(seed)
      strategy, changes = plan.strategy(arm), plan.changes(arm)
      if arm.strategy == run.cfg.select.strategy and arm != INCUMBENT:
        changes |= read_own(searched, arm.strategy)
      select_arm(run, name, strategy, plan.budget(arm), **changes)
      tune_arm(run, name, steps)
      evaluate_arm(run, name)
      made |= keep_times(run, run.workdir.path)
  finally:
    keep_times(run, run.workdir.path)
  return made


def _summarise(run: Run, plan: Plan) -> None:
  work, inputs = run.workdir, {}
  for seed in plan.seeds:
    seed_workdir = work.at_seed(seed, plan.fresh_pools)
    inputs[f"scores {seed}"] = seed_workdir.scores.digest()
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
    **({"published": plan.published} if plan.published else {}),
    "seed": recipe_config(run.cfg.seed),
    "tune": recipe_config(run.cfg.tune),
    "title": run.cfg.report.title,
  }
  recipe = run.recipe("compare", plain(config), inputs)

  def build(folder):
    from mllm_selector_jax.pages import comparison_page, comparison_plot, task_plot

    results = comparison_summary.summarise(run, plan)
    results["against_reference"] = against_reference.answer(results["table"])
    arm_costs = costs.find_costs(run, plan, results, read_times(work.path))
    text = comparison_page.format_markdown(results, arm_costs)
    picture = comparison_plot.draw(results)
    artifacts.write_json(folder / "results.json", results)
    artifacts.write_json(folder / "costs.json", arm_costs)
    artifacts.write_text(folder / "table.md", text)
    artifacts.write_table(
      folder / "table.parquet", comparison_summary.make_table(results)
    )
    artifacts.write_bytes(folder / "accuracy.png", picture)
    html = comparison_page.render(
      results, arm_costs, picture, run.cfg.report.title, task_plot.draw_tasks(results)
    )
    artifacts.write_text(folder / "compare.html", html)
    run.say(f"compare: over {len(plan.seeds)} seeds so far\n\n{text}")

  run.make(work.comparison, recipe, build)
  run.say(f"compare: {work.comparison.path / 'compare.html'} shows it")
