"""From records to tables, verdicts and figures.

Read the modules in this order: intervals, rules, tables, claims, equivalence, figures, pages.
"""
