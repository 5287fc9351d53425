"""What `make test` spends its time on, as a table: `python tools/test_times.py build/junit.xml`.

The seconds are each test's own, fixtures with it, as its worker's clock had them: two workers share the whole.
"""

import re
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path

PARTS = {  # part -> how the names of its files begin; the first that fits
    "chapters, compared with their outputs": "notebooks",
    "chapters in a browser": "browser",
    "site": "site",
    "exercises, wrong answers, mutants": "exercises mutants",
    "grading: a class, attacks, leaderboard": "class grade hostile leaderboard judge attacks isolation unearned",
    "kernels in Triton's interpreter": "kernels gpu",
    "real model: identity and sampling": "real_",
    "exact distributions, verifiers, sampling": "exact block_and_lossy sampling randomness trees trie packing",
    "engine, drafters": "identity row_attention target kv_cache hybrid adaptive support tree_drafting eagle_ bad_input",
    "command line, training": "cli eagle_training fetch hub endpoint export convert device",
    "benchmark, corpus, predictions": "bench corpus predict task_rows workloads choose cost_model harness observ",
    "packaging, layout, pages": "packaging architecture coverage_page notebooks_hygiene chapter_machinery",
    "everything else": "",
}


def part(name: str) -> str:
    """The part that a test's class name (`tests.reference.test_exact`, `notebooks.00_start_here.ipynb`) belongs to."""
    bare = re.sub(r"^tests\.(\w+\.)?test_", "", name)
    return next(title for title, starts in PARTS.items() if bare.startswith(tuple(starts.split()) or ("",)))


def main(path: Path) -> None:
    """Print the table, the longest part first."""
    suites = ET.parse(path).getroot()
    seconds, tests = Counter[str](), Counter[str]()
    for case in suites.iter("testcase"):
        title = part(case.get("classname", ""))
        seconds[title] += float(case.get("time", 0))
        tests[title] += 1
    whole = sum(float(suite.get("time", 0)) for suite in suites.iter("testsuite"))
    print("| part of the tests | tests | minutes |\n|---|---:|---:|")
    for title, spent in seconds.most_common():
        print(f"| {title} | {tests[title]:,} | {spent / 60:.1f} |")
    print(f"| sum of the workers | {sum(tests.values()):,} | {sum(seconds.values()) / 60:.1f} |")
    print(f"| **by the clock** | | **{whole / 60:.1f}** |")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
