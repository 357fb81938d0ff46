"""Sensor positions, as models and recordings agree on them."""

NO_POSITION = -0.1
"""Both coordinates of a sensor that has no place in the layout: spatial attention leaves it out."""
