"""Who is who in a gradebook: each student's folder name and the identity on the platform that it belongs to.

Kept in gradebook/students.json. A folder stays with the identity that had it first, so that two people whose names
become the same folder name get two folders, in this run and in all later ones.
"""

import json
from collections.abc import Iterable
from dataclasses import astuple
from pathlib import Path

from specdec_course.grader.names import Identity, as_student, short_hash

__all__ = ["Students"]


class Students:
    """Folder name -> identity, in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        kept = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        self.known = {folder: Identity(*who) for folder, who in kept.items()}

    def folders(self, people: Iterable[Identity]) -> dict[Identity, str]:
        """The folder of each, found or given out, and remembered."""
        given = {who: folder for folder, who in self.known.items()}
        taken = {folder.casefold() for folder in self.known}
        for who in sorted({*people} - given.keys()):
            folder = who.folder()
            if folder.casefold() in taken:
                folder = f"{folder}-{short_hash(repr(astuple(who)))}"
            given[who] = folder
            taken.add(folder.casefold())
            self.known[folder] = who
        self._save()
        return given

    def of(self, folder: str) -> Identity:
        """Whose it is. What came by another way than a class's folder is plain: its name is all there is."""
        return self.known.get(folder, Identity("plain", folder, ""))

    def called(self, text: str) -> set[str]:
        """The folders that a person may mean by this: the folder's name, the user id, or the name shown."""
        found = {f for f, who in self.known.items() if text in (f, who.user, who.name)}
        return found or {as_student(text)}

    def _save(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        new = self._path.with_suffix(".new")
        new.write_text(
            json.dumps({f: astuple(who) for f, who in sorted(self.known.items())}, indent=1), encoding="utf-8"
        )
        new.replace(self._path)
