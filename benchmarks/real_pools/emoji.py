"""`emoji`: pictograms and flags in two drawings, with what Unicode calls them.

Names, categories and sub-categories are those of the package's `emoji.json`; countries'
names, regions and capitals are those of `world-countries`. An emoji's drawing by
Twitter and its drawing by Google are two pictures, of which either side may have one:
what is asked of one drawing may be known from the other. Names of more than two words
and names of letters, arrows and people are not asked for.
"""

import json
from pathlib import Path

from benchmarks.real_pools.rows import Drawn, Picture, Pool, Question
from benchmarks.real_pools.sources import Package

DRAWINGS = {
  "twitter": Package(
    "emoji-datasource-twitter", "16.0.0", "MIT; Twitter's images are under CC BY 4.0"
  ),
  "google": Package(
    "emoji-datasource-google", "16.0.0", "MIT; Google's images are under Apache 2.0"
  ),
}
COUNTRIES = Package("world-countries", "5.1.0", "ODbL 1.0")
NAMED = (
  "Animals & Nature", "Food & Drink", "Objects", "Travel & Places", "Activities"
)  # fmt: skip
FLAG = "country-flag"
A = 0x1F1E6  # the regional indicator of the letter A


def read_countries(folder: Path) -> dict[str, tuple[str, str, str]]:
  """The name, region and capital of each independent country by its two letters."""
  return {
    country["cca2"]: (country["name"]["common"], country["region"], capital)
    for country in json.loads(COUNTRIES.read_one(folder, "countries.json"))
    if country["independent"] and (capital := next(iter(country["capital"]), ""))
  }


def ask_flag(picture: str, emoji: dict, countries: dict) -> list[Question]:
  """Questions about a country's flag; none about other territories'."""
  letters = "".join(
    chr(int(code, 16) - A + ord("A")) for code in emoji["unified"].split("-")
  )
  if letters not in countries:
    return []
  name, region, capital = countries[letters]
  return [
    Question(picture, "country", "Which country has this flag?", name),
    Question(picture, "region", "Where is the country with this flag?", region),
    Question(
      picture, "capital", "What is the capital of the country with this flag?", capital
    ),
  ]


def ask(picture: str, emoji: dict, countries: dict) -> list[Question]:
  """All questions about a drawing of an emoji."""
  category, kind = emoji["category"], emoji["subcategory"]
  plain = category.lower().replace("&", "and")
  asked = [Question(picture, "category", "What group is this emoji in?", plain)]
  if kind == FLAG:
    return asked + ask_flag(picture, emoji, countries)
  if category == "Component":
    return []
  asked.append(
    Question(picture, "kind", "What sort of thing is this emoji?", simplify(kind))
  )
  name = (emoji["name"] or "").lower()
  if category in NAMED and 0 < len(name.split()) <= 2 and kind != "time":
    asked.append(Question(picture, "name", "What does this emoji show?", name))
  return asked


def simplify(kind: str) -> str:
  """A sub-category as words: "animal-bird" is "bird", "food-fruit" is "fruit"."""
  first, _, rest = kind.partition("-")
  words = rest if first in ("animal", "food", "plant", "place") and rest else kind
  return words.replace("-", " ").replace("&", "and")


def read(folder: Path) -> Drawn:
  """Reads both drawings of all emoji, and the questions about them."""
  emoji = json.loads(DRAWINGS["twitter"].read_one(folder, "emoji.json"))
  countries = read_countries(folder)
  pictures, questions = {}, []
  for drawing, package in DRAWINGS.items():
    files = {
      f"img/{drawing}/64/{one['image']}": one
      for one in emoji
      if one[f"has_img_{drawing}"]
    }
    for name, data in package.read(folder, files):
      pictures[name] = Picture(data)
      questions += ask(name, files[name], countries)
  return pictures, questions


POOL = Pool(
  name="emoji",
  sources=(*DRAWINGS.values(), COUNTRIES),
  read=read,
  rows={
    "name": 480, "category": 310, "kind": 240, "country": 180, "capital": 155,
    "region": 135,
  },
  asked={
    "category": 160, "kind": 110, "region": 90, "name": 80, "country": 50, "capital": 30
  },
  share=22,
  sha256="06cebf09aa4d89788f6badfeb31a4f7420997dd24f120b55fe8d5ca502e9325c",
)  # fmt: skip
