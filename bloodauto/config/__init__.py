"""What a user can declare: recipes, search spaces, settings and budgets, validated with messages that name the place."""
