"""Makes selections for several budgets and KL weights, without tuning on them."""

from typing import Any

from mllm_selector_jax import listing
from mllm_selector_jax.pipeline import candidates, needs, select_arm
from mllm_selector_jax.pipeline.listed_rows import name_rows
from mllm_selector_jax.runs import artifacts
from mllm_selector_jax.runs.context import Run
from mllm_selector_jax.selection import measures
from mllm_selector_jax.selection.selection import Selection


def read_settings(section: Any) -> tuple[list[str], list[float]]:
  """Return the budgets and the KL weights (lambda) that `select.sweep` lists."""
  weights = listing.split_names(section.kl_weights)
  return listing.split_names(section.budgets), [float(weight) for weight in weights]


def sweep(run: Run) -> None:
  """Make `sweep/` if `select.sweep` names budgets or KL weights.

  `sweep.parquet` has one line for each pair of a budget and a weight. `kept.parquet`
  has the number, id and hash of the eligible rows, and one column for each pair that
  says which of them are kept. Each selection is also an arm.
  """
  budgets, weights = read_settings(run.cfg.select.sweep)
  if not budgets and not weights:
    return
  budgets = budgets or [run.cfg.select.budget]
  config, _ = name_rows(run, candidates.make_config(run, budgets=budgets))
  weights = weights or [config["kl_weight"]]
  del config["budget"], config["kl_weight"]
  recipe = run.recipe(
    "select",
    {**config, "kl_weights": weights},
    {
      "scores": run.workdir.scores.digest(),
      "pool": run.workdir.pool.digest(),
      **needs.identify_plugins(config),
    },
  )

  aside = run.workdir.sweep.aside(recipe.to_text())

  def build(folder):
    import pyarrow as pa

    eligible = candidates.read_eligible(run, config, run.cfg.rng_seed, aside=aside)
    lines = []
    kept = {"row": pa.array(eligible.rows)}
    for name in ("id", "hash"):
      column = getattr(eligible.pool, name)[eligible.rows]
      kept[name] = pa.array(column.tolist(), pa.string())
    total = len(budgets) * len(weights)
    with run.progress("sweep", "selection") as progress:
      for weight in weights:
        for budget in budgets:
          selection = eligible.select(budget, run.cfg.rng_seed, kl_weight=weight)
          tokens = int(eligible.scores.tokens[selection.kept].sum())
          line = {"budget": budget, "kl_weight": weight, "tokens": tokens}
          lines.append({**line, **measure(selection)})
          kept[f"{budget} {weight:g}"] = pa.array(selection.kept)
          progress(len(lines), total)
    artifacts.write_table(folder / "sweep.parquet", pa.Table.from_pylist(lines))
    artifacts.write_table(folder / "kept.parquet", pa.table(kept))
    for line in lines:
      run.say(
        f"sweep: {line['budget']:>8} lambda {line['kl_weight']:<6g} keeps"
        f" {line['kept']:,} rows, necessity {line['necessity']:.3f},"
        f" as diverse as {line['effective_groups']:.1f} even groups"
      )

  run.make(run.workdir.sweep, recipe, build)
  strategy = run.cfg.select.strategy
  for weight in weights:
    for budget in budgets:
      arm = select_arm.select_arm(run, "", strategy, budget, kl_weight=weight)
      run.say(f"sweep: {budget:>8} lambda {weight:<6g} is the arm {arm}")


def measure(selection: Selection) -> dict[str, Any]:
  """Compute the figures of a selection.

  Returns:
    A dict with these entries. "kept": number of kept rows. "necessity": mean
    rank-normalised necessity of the kept rows. "divergence": KL divergence of the
    groups' shares from the target, in nats; None if there is no target or the
    divergence is infinite. "effective_groups": exponential of the entropy of the
    shares. "gap": optimality gap of the certificate; None without a certificate.
  """
  shares = selection.table.reached
  return {
    "kept": int(selection.kept.sum()),
    "necessity": float(selection.normalised_necessity[selection.kept].mean()),
    "divergence": measures.divergence(shares, selection.table.target),
    "effective_groups": measures.effective_groups(shares),
    "gap": selection.certificate.gap if selection.certificate else None,
  }
