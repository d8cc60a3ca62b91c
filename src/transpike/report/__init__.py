"""From result files to one self-contained HTML page; knows nothing of networks."""

from transpike.report.page import PAGE, build_page, check_outputs, write_report
from transpike.report.rows import write_rows

__all__ = ["PAGE", "build_page", "check_outputs", "write_report", "write_rows"]
