"""Of every key of `plan` values that none of its kind is."""

_NOT_NUMBER = ("1", True, float("nan"))  # None is no value, which may be

PLAN = {
  "plan.topology": ("v9-8", "v5p", "v5e-3", "h100-0", "v5e-8,a100-8", "", 5),
  "plan.rows": (0, -1, 1.5, "1", True),
  "plan.tokens": (0.5, *_NOT_NUMBER),
  "plan.images": (-1.0, 2000.0, None, *_NOT_NUMBER),
  "plan.image_size": ("640", "0x480", "640x480x3", 640, None, True),
  "plan.summary": ("", " ", 5),
  "plan.mfu": (0.0, -0.1, 1.1, *_NOT_NUMBER),
  "plan.price": (0.0, -1.0, "free", "a100=2", "h100=0", "h100=2,v9=1", True),
}
