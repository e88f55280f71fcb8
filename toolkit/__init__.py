"""seg-tune: fine-tune instance segmentation models on Paddle and put them into service.

data -> models -> losses -> train -> evaluate -> export -> pipeline

A room imports only from rooms to its left (and recipe, zoo, errors); `pipeline` needs neither models nor training.
"""

from __future__ import annotations

__version__ = "0.1.0"
