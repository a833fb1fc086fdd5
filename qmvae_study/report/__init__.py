"""From records to tables, verdicts and figures.

Read the modules in this order: words, intervals, rules, tables, reasons, claims, answers, equivalence, figures,
sources, pages, three.
"""
