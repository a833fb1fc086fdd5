"""From records to tables, verdicts and figures.

Read the modules in this order: intervals, tables, reasons, claims, equivalence, figures, pages.
"""
