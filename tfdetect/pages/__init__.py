"""Self-contained HTML pages: the report, the audit, the explanation."""
