"""The study of one paper: its plan, its runs and their records, and what they say to the paper's tables and claims.

`python -m qmvae_study plan | run | queue | status | collect | amend | render | oracles | published`.

Read the modules in this order: paper, rows, shell, signals, evidence, report, sensitivity, hunt, plateau, oracles,
text, harness, plan, validation, judges, panels, codes, diagnosis, subsets, runs, execution, cluster, queue.
"""
