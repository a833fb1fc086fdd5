"""The systems that Q-MVAE comes from and some that stand beside it, one module each; nothing outside imports them.

Read `vae` first. `experiments` holds what the chapters of the book's second part share: profiles, records, trainings.
"""
