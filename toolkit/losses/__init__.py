"""Loss functions and the assignment of predictions to objects."""

import toolkit.device  # noqa: F401  # so that Paddle is imported there first
