"""What became of runs, as one HTML file that opens anywhere."""

from trainbus_report.report import write_report

__all__ = ["write_report"]
