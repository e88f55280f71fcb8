"""How good a model is."""

import toolkit.device  # noqa: F401  # so that Paddle is imported there first
