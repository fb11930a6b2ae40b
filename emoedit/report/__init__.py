"""Pictures and pages that show results."""
