"""The shift suite, simulated sites, their overlap with training augmentation, and the external performance estimate."""
