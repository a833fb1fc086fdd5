"""From records to tables, verdicts and figures.

Read the modules in this order: tables, claims, equivalence, figures.
"""
