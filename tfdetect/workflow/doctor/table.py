"""The findings as a table that shows the page."""

import html
from dataclasses import fields

from tfdetect.pandas_settings import pd
from tfdetect.workflow.doctor.finding import Finding
from tfdetect.workflow.doctor.page import format_page


class Findings(pd.DataFrame):
    """One row per check, with the fields of `Finding` as columns; a part of it, or one with other columns, is shown as an
    ordinary DataFrame."""

    def __repr__(self) -> str:
        if list(self) != [field.name for field in fields(Finding)]:
            return super().__repr__()
        findings = [Finding(*row) for row in self.itertuples(index=False, name=None)]
        return format_page(findings, sum(finding.seconds for finding in findings))

    def _repr_html_(self) -> str:
        return f"<pre style='font-family: monospace'>{html.escape(repr(self))}</pre>"
