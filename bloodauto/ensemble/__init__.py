"""Which models to average and with what weights, and how far the average's probabilities can be believed."""
