"""Figures: each is a plain frozen tuple of numbers (``..._info``) and a function that draws it (``draw_...``)."""
