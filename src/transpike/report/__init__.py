"""From result files to one self-contained HTML page; knows nothing of networks."""

from transpike.report.page import PAGE, build_page, write_report

__all__ = ["PAGE", "build_page", "write_report"]
