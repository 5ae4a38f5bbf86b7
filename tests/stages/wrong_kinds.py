"""Values that are none of a kind of setting, and those of every key of `select`."""

from mllm_selector_jax.pipeline.listed_rows import LISTS

NOT_WHOLE = (1.5, "1", True, None)
NOT_FLAG = ("yes", 1, None)
NOT_NUMBER = ("1", True, None, float("nan"))
NOT_TEXTS = (5, {"a": 1}, [1], True)
COUNT = (-1, *NOT_WHOLE)  # of what may be 0
SIZE = (0, *COUNT)  # of what may not
OPTIONAL_COUNT = tuple(value for value in COUNT if value is not None)
OPTIONAL_SIZE = (0, *OPTIONAL_COUNT)
SHARE = (-0.1, 1.1, *NOT_NUMBER)
POSITIVE = (0.0, -1.0, float("inf"), *NOT_NUMBER)
NAME = ("", " ", 5)
BUDGET = ("0", "-1", "200%", "5 %%", "many", "2h", "101%flops", None, True, 0.5)
PATH = ("", 5, True)  # of what may be None

RECIPE = {
  "epochs": SIZE,
  "batch": SIZE,
  "accumulate": SIZE,
  "learning_rate": POSITIVE,
  "warmup": (1.0, *SHARE),
  "weight_decay": (-1.0, float("inf"), *NOT_NUMBER),
  "b1": (1.0, *SHARE),
  "b2": (1.0, *SHARE),
  "clip": (0.0, -1.0, *NOT_NUMBER),
  "first_moment": ("float16", None),
  "trainable": ("encoder", None),
  "projector_learning_rate": (0.0, -1.0, "1"),
  "lora.rank": COUNT,
  "lora.alpha": POSITIVE,
  "lora.modules": ("encoder", "decoder,vision", "all,decoder", "", None, 5, True),
  "group_by_modality_length": NOT_FLAG,
  "row_length": (1 << 30, *SIZE),
  "save_every": COUNT,
  "keep": SIZE,
  "keep_best": COUNT,
  "spike": (-1.0, 0.5, 1.0, *NOT_NUMBER),
  "threads": COUNT,
}
AMOUNTS = ("image", "image=0", "image=101%", "image=2tok", 2, True, ["image=2"])
SELECT = {
  "select.strategy": ("klx", "", None),
  "select.budget": BUDGET,
  "select.signal": NAME,
  "select.normalise": NAME,
  "select.kl_weight": (-1.0, *NOT_NUMBER),
  "select.groups": ("", "a*", "*", 5),
  "select.clusters": COUNT,
  "select.strata": SIZE,
  "select.target": ("even", None),
  "select.tempering": (-1.0, *NOT_NUMBER),
  "select.target_shares": (5, ["a"]),
  "select.bound": ("nine", "0.95", 1.5, -0.1, None),
  "select.competence": SHARE,
  "select.visual": NOT_FLAG,
  "select.duplicates": SHARE,
  "select.floor": SHARE,
  "select.cap": (0.0, *SHARE),
  "select.most": AMOUNTS,
  "select.least": AMOUNTS,
  **{f"select.{name}": (0.5, {"a": 1}, True) for name in LISTS},
  "select.most_missing": SHARE,
  "select.within": ("random", None),
  "select.temperature": (0.0, -1.0, *NOT_NUMBER),
  "select.sweep.budgets": ("5%,200%", "5%,many", ["0"], True, {"a": 1}),
  "select.sweep.kl_weights": ("0.2,much", "-1", ["nan"], True, {"a": 1}),
  "select.search.candidates": (1, *COUNT),
  "select.search.strategy": ("kl,nine", True, {"a": 1}),
  "select.search.signal": NOT_TEXTS,
  "select.search.kl_weight": ("much", -1.0, ["nan"], True, {"a": 1}),
  "select.search.groups": ("source,a*", True, {"a": 1}),
  "select.search.tempering": ("much", "-1", True, {"a": 1}),
  "select.search.bound": ("none,nine", "0.95", True, {"a": 1}),
  "select.search.development": ("100%", "500", "200%", 500, None, True),
  "select.search.images": NOT_TEXTS,
  "select.search.cost": (0.0, -1.0, 10.0, *NOT_NUMBER),
  "select.search.steps": OPTIONAL_SIZE,
  "select.search.level": (0.0, 1.0, *NOT_NUMBER),
  "select.search.halving": (1, *SIZE),
  "select.rounds": SIZE,
  "select.control": NOT_FLAG,
}
