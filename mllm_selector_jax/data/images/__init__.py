"""An image: found inside the pool's folders, decoded safely, and made pixels."""
