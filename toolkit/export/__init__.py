"""A trained model as files that run elsewhere."""

import toolkit.device  # noqa: F401  # so that Paddle is imported there first
