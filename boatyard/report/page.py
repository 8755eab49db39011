"""The page."""

from boatyard.report import Report


def render(report: "Report") -> str:
    return "<html></html>"
