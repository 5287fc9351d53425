"""Releasing the exercises and grading what comes back: class runs, sandbox, feedback, marks.

Only `course` and `submission`, which the instructor's commands use, need nbgrader.
"""
