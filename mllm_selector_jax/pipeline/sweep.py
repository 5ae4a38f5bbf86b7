"""Selections of many budgets and lambdas from one score table, without a tune."""

from typing import Any

from mllm_selector_jax import listing
from mllm_selector_jax.pipeline import candidates, needs
from mllm_selector_jax.runs import artifacts
from mllm_selector_jax.runs.context import Run
from mllm_selector_jax.selection import measures
from mllm_selector_jax.selection.selection import Selection


def read_settings(section: Any) -> tuple[list[str], list[float]]:
  """The budgets and lambdas that `select.sweep` lists."""
  weights = listing.split_names(section.kl_weights)
  return listing.split_names(section.budgets), [float(each) for each in weights]


def sweep(run: Run) -> None:
  """Makes `sweep/` where `select.sweep` names budgets or lambdas.

  `sweep.parquet` has a line a setting, `kept.parquet` a column a setting with
  which of the eligible rows it keeps, beside their number, id and hash.
  """
  budgets, weights = read_settings(run.cfg.select.sweep)
  if not budgets and not weights:
    return
  config, _ = candidates.name_rows(run, candidates.make_config(run))
  budgets, weights = budgets or [config["budget"]], weights or [config["kl_weight"]]
  del config["budget"], config["kl_weight"]
  recipe = run.recipe(
    "select",
    {**config, "budgets": budgets, "kl_weights": weights},
    {
      "scores": run.workdir.scores.digest(),
      "pool": run.workdir.pool.digest(),
      **needs.identify_plugins(config),
    },
  )

  def build(folder):
    import pyarrow as pa

    eligible = candidates.read_eligible(run, config, run.cfg.rng_seed)
    lines = []
    kept = {"row": pa.array(eligible.rows)}
    for name in ("id", "hash"):
      column = getattr(eligible.pool, name)[eligible.rows]
      kept[name] = pa.array(column.tolist(), pa.string())
    total = len(budgets) * len(weights)
    with run.progress("sweep", "selection") as progress:
      for weight in weights:
        for budget in budgets:
          found = eligible.select(budget, run.cfg.rng_seed, kl_weight=weight)
          tokens = int(eligible.scores.tokens[found.kept].sum())
          line = {"budget": budget, "kl_weight": weight, "tokens": tokens}
          lines.append({**line, **measure(found)})
          kept[f"{budget} {weight:g}"] = pa.array(found.kept)
          progress(len(lines), total)
    artifacts.write_table(folder / "sweep.parquet", pa.Table.from_pylist(lines))
    artifacts.write_table(folder / "kept.parquet", pa.table(kept))
    for line in lines:
      run.say(
        f"sweep: {line['budget']:>8} lambda {line['kl_weight']:<6g} keeps"
        f" {line['kept']:,} rows, necessity {line['necessity']:.3f}, like"
        f" {line['effective_groups']:.1f} even groups"
      )

  run.make(run.workdir.sweep, recipe, build)


def measure(selection: Selection) -> dict[str, Any]:
  """A selection in figures.

  Returns:
    kept: rows. necessity: their mean, rank-normalised. divergence: KL of the
    groups' shares to the target in nats, None without one or beyond it.
    effective_groups: exp of the shares' entropy. gap: of the certificate.
  """
  shares = selection.table.reached
  return {
    "kept": int(selection.kept.sum()),
    "necessity": float(selection.normalised_necessity[selection.kept].mean()),
    "divergence": measures.divergence(shares, selection.table.target),
    "effective_groups": measures.effective_groups(shares),
    "gap": selection.certificate.gap if selection.certificate else None,
  }
