"""From records to tables, verdicts and figures.

Read the modules in this order: intervals, rules, tables, reasons, claims, equivalence, figures, pages.
"""
