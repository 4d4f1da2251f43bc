"""The budget: ledger, allocation, cost model and time limits."""
