"""A search as it stands, read from its directory: status, decisions, leaderboard. For terminals and programs."""
