"""The forms by name: one line for each."""

from mllm_selector_jax.data.images.image_forms.anyres_form import ANYRES
from mllm_selector_jax.data.images.image_forms.gemma4_form import GEMMA4
from mllm_selector_jax.data.images.image_forms.glm_form import GLM4V
from mllm_selector_jax.data.images.image_forms.idefics3_form import IDEFICS3
from mllm_selector_jax.data.images.image_forms.image_layout import ImageForm
from mllm_selector_jax.data.images.image_forms.internvl_form import INTERNVL
from mllm_selector_jax.data.images.image_forms.native_form import NATIVE
from mllm_selector_jax.data.images.image_forms.pixtral_form import PIXTRAL
from mllm_selector_jax.data.images.image_forms.square_form import SQUARE
from mllm_selector_jax.data.images.image_forms.stretched_form import STRETCHED

FORMS: dict[str, ImageForm] = {
  "square": SQUARE,
  "internvl": INTERNVL,
  "anyres": ANYRES,
  "native": NATIVE,
  "glm4v": GLM4V,
  "pixtral": PIXTRAL,
  "idefics3": IDEFICS3,
  "smolvlm": IDEFICS3,
  "stretched": STRETCHED,
  "gemma4": GEMMA4,
}
