"""Training one recipe. Knows nothing of Ray, Optuna or budgets."""
