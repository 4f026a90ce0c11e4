"""The pages: report.html of a run and check.html of a data check."""
