"""The colours of figures: distinct on light and dark pages, and for people who confuse red and green."""

BLUE, ORANGE, GRAY = "#3b7dc4", "#e08a3c", "#8a97a6"
SERIES = (BLUE, ORANGE, "#3f9e78", "#b06fc0", "#c8a21e", "#4fb3cf", "#d0606a", GRAY)
"""Colours of several lines or areas in one figure, in this order."""
