"""The forms by name: one line for each."""

from mllm_selector_jax.data.images.image_forms.image_layout import ImageForm
from mllm_selector_jax.data.images.image_forms.square_form import SQUARE

FORMS: dict[str, ImageForm] = {"square": SQUARE}
