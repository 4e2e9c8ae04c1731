"""Self-contained HTML pages: report, audit and explanation."""
