"""Which rows have the same answers."""

from mllm_selector_jax.data.pool import pool_check
from mllm_selector_jax.data.pool.pool_table import read_table
from mllm_selector_jax.data.tokens.dialogue import Round, hash_answers
from tests.data.pools_on_the_spot import make_encoder, talk, write_records


def number(*answers):
  return hash_answers([Round("What is it?", each) for each in answers])


def test_answers_are_the_same_but_for_case_blanks_and_full_stops():
  same = ["Yes", "yes", " YES. ", "\nyes.\n", "Yes。", "yes .", "yes..."]
  assert len({number(each) for each in same}) == 1
  assert number("STRASSE") == number("straße.")
  questions = [Round("Is it red?", "yes"), Round("Is it blue?", "yes")]
  assert hash_answers(questions) == number("yes", "yes")


def test_other_answers_have_other_numbers():
  answers = [
    ("yes",), ("no",), ("yes!",), ("yes", "no"), ("no", "yes"), ("yes", "yes"),
    ("yes no",), ("yes\0no",), ("yes", ""), ("",), (".5",), ("5",), ("\udce9",),
  ]  # fmt: skip
  found = [number(*each) for each in answers]
  assert len(set(found)) == len(answers) and all(0 < each < 2**64 for each in found)


def test_the_pool_table_holds_them(tmp_path):
  records = [
    {"id": f"id-{n}", "conversations": talk(f"Question {n}?", answer)}
    for n, answer in enumerate(["Yes.", "no", "yes", "yes", "No"])
  ]
  records[3]["conversations"] += talk("And now?", "no")
  path = write_records(tmp_path / "pool.json", [*records, {"id": "x"}])
  out = tmp_path / "pool.parquet"
  pool_check.check_pool([path], None, make_encoder(), 10_000, out)
  yes, no, again, both, other, bad = read_table(out).answer.tolist()
  assert yes == again == number("yes") and no == other == number("no")
  assert both == number("yes", "no") and bad == 0
