"""Self-checks of the exercises, a folder per exercise: its checks, and its bank of common mistakes.

A notebook imports one module, `from specdec_course.checks import verification as check`. It needs no nbgrader.
"""
