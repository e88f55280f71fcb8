"""Backbones, necks, heads and operators that models share."""

import toolkit.device  # noqa: F401  # so that Paddle is imported there first
