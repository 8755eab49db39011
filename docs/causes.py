"""Write the table of causes of docs/why.md from the code: python docs/causes.py."""

from pathlib import Path

from boatyard.diagnosis import CAUSES
from boatyard.diagnosis.runs import ENDS

PAGE = Path(__file__).with_name("why.md")
BEGIN, END = "<!-- causes -->\n", "<!-- /causes -->\n"


def table() -> str:
    """Return a row for every cause, the deepest first."""
    rows = [(each.name, each.what, each.reads) for each in CAUSES] + [(name, *rest) for name, rest in ENDS.items()]
    lines = [f"| `{name}` | {what[:1].upper()}{what[1:].rstrip('.')} | {reads} |" for name, what, reads in rows]
    return "\n".join(["| cause | what is wrong | read from |", "|---|---|---|", *lines, ""])


def page() -> str:
    """Return the page with the table as it has to be."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    return before + BEGIN + table() + END + rest.partition(END)[2]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
