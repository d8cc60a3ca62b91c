"""Turns result files into one self-contained HTML page. It knows nothing about networks."""

from transpike.report.page import PAGE, build_page, check_outputs, write_report
from transpike.report.rows import write_rows
from transpike.report.study import findings_table, write_arms

__all__ = ["PAGE", "build_page", "check_outputs", "findings_table", "write_arms", "write_report", "write_rows"]
