"""AutoML for blood-cell images that searches for what holds in another laboratory, inside a fixed compute budget."""
