"""The systems that Q-MVAE comes from and some that stand beside it; nothing outside imports them.

`experiments` holds what the chapters of the book's second part share: profiles, records, trainings; `report` what
their tables and figures do; `series` how files of numbers are read. Then a folder a chapter, B1 to B6, each with its
`model`, its `experiment`, and the `results` that the chapter shows.

Read the modules in this order: experiments, report, series, vae, jmvae, gwae, factors, runoff, eeg.
"""
