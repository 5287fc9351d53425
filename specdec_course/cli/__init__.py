"""`specdec grade` and `specdec leaderboard`, which the `specdec` command finds through their entry points."""
