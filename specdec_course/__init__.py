"""What the course needs beyond the reference package: widgets, drawings, checks of exercises, and grading."""
