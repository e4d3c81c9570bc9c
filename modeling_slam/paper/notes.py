"""`docs/paper-notes.md`: the paper's statements beside what arithmetic gives.

    python -m modeling_slam.paper.notes > docs/paper-notes.md

A test holds the document equal to this module's output.
"""

from modeling_slam.analysis.frames import each_row, groups
from modeling_slam.paper.checks import paper_checks

HEAD = """# Notes on the paper's numbers

What the tables of [arXiv:2603.27981v1](https://arxiv.org/abs/2603.27981) say when they are computed from
each other, and where its sentences say more than its tables. Nothing here doubts the experiments: these are
slips of writing up, and places to be careful when quoting. The numbers are the paper's (CC BY-SA 4.0), in
[paper/tables/](../modeling_slam/paper/tables/README.md). They are computed in
[rows.py](../modeling_slam/paper/rows.py) and
[checks.py](../modeling_slam/paper/checks.py), which make this page:

```bash
python -m modeling_slam.paper.notes > docs/paper-notes.md
```

**{agreeing} of {all} checks agree.** Row by row from Python: `check_table3()`, `check_table5()`,
`check_table7()` and `check_reductions()` in `modeling_slam.paper.rows`.
"""


def paper_notes() -> str:
    """The document, as Markdown."""
    checks = paper_checks()
    parts = [HEAD.format(agreeing=checks["agrees"].sum(), all=len(checks))]
    for topic, group in groups(checks, "topic"):
        lines = [
            f"## {topic}\n",
            "| | where | the paper says | arithmetic gives | how |",
            "|---|---|---|---|---|",
        ]
        lines += [
            f"| {'agrees' if row.agrees else '**differs**'} | {row.where} | {row.stated} | {row.computed} "
            f"| {row.how} |"
            for row in each_row(group)
        ]
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


if __name__ == "__main__":
    print(paper_notes(), end="")
