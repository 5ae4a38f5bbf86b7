"""Normalises answers as the VQA evaluations do before they compare them.

Sources: the published answer processing of the VQA evaluation
(https://visualqa.org/evaluation.html), and the tokenisation that the evaluations of
TextVQA and VizWiz apply before it.
"""

import re

# The words that stand for numbers, the words and marks that are dropped, and the
# contractions of which people often omit an apostrophe.
DIGIT_WORDS = {
  word: str(number)
  for number, word in enumerate(
    "zero one two three four five six seven eight nine ten".split()
  )
} | {"none": "0"}
ARTICLES = frozenset(("a", "an", "the"))
PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
CONTRACTIONS = """
  ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't
  hadn't've hasn't haven't he'd he'd've he's how'd how'll how's
  isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've
  needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't
  shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've someone'll
  someone's something'd something'd've something'll that's there'd there'd've
  there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've
  weren't what'll what're what's what've when's where'd where's where've who'd
  who'd've who'll who's who've why'll why're why's won't would've wouldn't
  wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
""".split()
_RESTORED = {
  word[:place] + word[place + 1 :]: word
  for word in CONTRACTIONS
  for place, letter in enumerate(word)
  if letter == "'"
} | {"somebody'd": "somebodyd"}  # reversed, as in the published table
_DIGIT_COMMA = re.compile(r"\d,+\d")
_LOOSE_PERIOD = re.compile(r"\.(?!\d)")
_MOST_PERIODS = 32  # are deleted: the published code passes re.UNICODE (32) as `count`


def normalise_vqa(text: str) -> str:
  """Normalises an answer as the VQA evaluation does.

  A punctuation mark is deleted if it occurs next to a space anywhere in the text, or if
  the text has a comma between digits; otherwise it is replaced by a space. Periods that
  are not before a digit are deleted. Number words are replaced by digits, articles are
  deleted, and contractions get the apostrophe that they lack.
  """
  text = text.replace("\n", " ").replace("\t", " ").strip()
  out = text
  for mark in PUNCTUATION:
    # As in the published code, the conditions refer to the original text.
    delete = f"{mark} " in text or f" {mark}" in text or _DIGIT_COMMA.search(text)
    out = out.replace(mark, "" if delete else " ")
  out = _LOOSE_PERIOD.sub("", out, count=_MOST_PERIODS)
  words = [DIGIT_WORDS.get(word, word) for word in out.lower().split()]
  return " ".join(_RESTORED.get(word, word) for word in words if word not in ARTICLES)


def normalise_textvqa(text: str) -> str:
  """Normalises an answer as the evaluations of TextVQA and VizWiz do.

  The text is put into lower case, commas and question marks are deleted, and 's is
  separated from its word, before `normalise_vqa`.
  """
  text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's")
  return normalise_vqa(text)
