"""The ensemble of a run: out-of-fold predictions of its networks, selection of members and weights, selection bias."""
