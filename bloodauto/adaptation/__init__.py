"""Adapts an exported ensemble to one site: magnification, colours and a head fitted to a few labelled cells."""
