"""Figures and sections of one HTML page about a run, and the dashboard; reads ``bloodauto.run`` and computes no figure."""
