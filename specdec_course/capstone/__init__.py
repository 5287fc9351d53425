"""Exercise 09: the interface of a student's decoder, its checks, and the leaderboard."""
