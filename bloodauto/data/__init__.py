"""Where images come from: loading, cleaning, leak-safe splits, and cells drawn by the generator."""
