"""Answers as the VQA evaluations compare them: spelled in one way.

Sources: the VQA evaluation's published answer processing
(https://visualqa.org/evaluation.html), and the tokenisation before it that TextVQA's
and VizWiz's evaluations share.
"""

import re

# What stands for a number, what is dropped, and the contractions that people write
# with one apostrophe missing.
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
} | {"somebody'd": "somebodyd"}  # the published table has this one the wrong way round
_DIGIT_COMMA = re.compile(r"\d,+\d")
_LOOSE_PERIOD = re.compile(r"\.(?!\d)")
_MOST_PERIODS = 32  # deleted; the published code passes a flag as the count


def normalise_vqa(text: str) -> str:
  """An answer as the VQA evaluation compares it.

  A punctuation mark that touches a space, or any of them in a text with a comma
  between digits, is deleted; elsewhere it becomes a space. Periods not before a
  digit are deleted; number words become digits; articles go; contractions get
  the apostrophe that they lack.
  """
  text = text.replace("\n", " ").replace("\t", " ").strip()
  out = text
  for mark in PUNCTUATION:
    # Judged on the text before any mark was replaced, as the published rule is.
    delete = f"{mark} " in text or f" {mark}" in text or _DIGIT_COMMA.search(text)
    out = out.replace(mark, "" if delete else " ")
  out = _LOOSE_PERIOD.sub("", out, count=_MOST_PERIODS)
  words = [DIGIT_WORDS.get(word, word) for word in out.lower().split()]
  return " ".join(_RESTORED.get(word, word) for word in words if word not in ARTICLES)


def normalise_textvqa(text: str) -> str:
  """The same of a text in lower case, without commas and question marks, 's apart."""
  text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's")
  return normalise_vqa(text)
