"""Pools of third-party images and questions, and the mixture of them."""
