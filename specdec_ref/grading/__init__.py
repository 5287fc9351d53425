"""Exercises: self-checks that answer in sentences, and the release, grading and marks of the whole course.

A notebook imports one module, `from specdec_ref.grading import verification as check`, and needs nothing beyond the
package. Only `course` and `submission`, which the instructor's commands use, need nbgrader.
"""
