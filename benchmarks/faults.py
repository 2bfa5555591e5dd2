"""Count what the fault tests did: boundaries resumed, operations failed, kills.

Runs the tests of ``tests/faults``, the long ones too (half an hour on two cores), and
keeps for each numbered promise how many passed and what they counted. More arguments
go to pytest: ``-k c1``.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import environment

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from promises import as_text, tally  # noqa: E402

OUTCOMES = ("failure", "error", "skipped")


def run(arguments: list[str]) -> dict[str, Any]:
    """Run pytest and return what its report says."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-m", "", "tests/faults"]
        subprocess.run(
            [*command, f"--junitxml={report}", *arguments], cwd=ROOT, check=False
        )
        suite = ElementTree.parse(report).getroot().find("testsuite")
    assert suite is not None, "pytest writes one suite"
    cases = [
        (
            case.attrib["name"],
            next((each for each in OUTCOMES if case.find(each) is not None), "passed"),
            {
                each.attrib["name"]: int(each.attrib["value"])
                for each in case.iter("property")
            },
        )
        for case in suite.iter("testcase")
    ]
    outcomes = [outcome for _, outcome, _ in cases]
    return {
        "seconds": round(float(suite.attrib["time"])),
        "tests": len(cases),
        "failed": outcomes.count("failure") + outcomes.count("error"),
        "skipped": outcomes.count("skipped"),
        "promises": tally(cases),
    }


def main() -> None:
    """Run, print the counts, and keep them if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="keep the counts")
    options, others = parser.parse_known_args()
    results = run(others)
    rows = [[number, as_text(counts)] for number, counts in results["promises"].items()]
    print(environment.table(["promise", "put to the test"], rows))
    print(
        f"{results['tests']} tests, {results['failed']} failed, "
        f"{results['skipped']} skipped, {results['seconds']} s"
    )
    if options.write:
        print(environment.write("faults", results))
    sys.exit(1 if results["failed"] else 0)


if __name__ == "__main__":
    main()
