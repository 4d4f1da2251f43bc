"""What a user can declare: recipes, search spaces, settings and budgets; their validation, with messages that name the place."""
