"""results.json and report.html."""
