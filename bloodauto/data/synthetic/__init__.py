"""Synthetic cells: morphology, film, and how a site images them."""
