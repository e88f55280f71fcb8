"""The training loop and its parts."""

import toolkit.device  # noqa: F401  # so that Paddle is imported there first
