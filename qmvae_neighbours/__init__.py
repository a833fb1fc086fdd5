"""The systems that Q-MVAE comes from and some that stand beside it; nothing outside imports them.

`experiments` holds what the chapters of the book's second part share: profiles, records, trainings. Then a chapter
each: `vae` (B1); `jmvae` (B2); `factors`, `gwae` and `gwae_experiment` (B3); `influence` (B4); `runoff` (B5);
`eeg_data`, `eeg_frames` and `eeg` (B6).

Read the modules in this order: experiments, vae, jmvae, factors, gwae, gwae_experiment, influence, runoff, eeg_data,
eeg_frames, eeg.
"""
