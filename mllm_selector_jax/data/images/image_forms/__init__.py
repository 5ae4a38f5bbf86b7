"""Images to tiles and tokens, in the forms of the model families.

A form says how an image is cut into the square tiles that the vision tower reads, and
how the tiles' features are laid into the row of tokens. An image's size alone decides
the layout, and whether its row has other images. A form is a file of its own and a line
in `FORMS`.
"""

from mllm_selector_jax.data.images.image_forms.base_images import BaseImages
from mllm_selector_jax.data.images.image_forms.forms import FORMS

__all__ = ["FORMS", "BaseImages"]
