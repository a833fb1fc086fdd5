"""The systems that Q-MVAE comes from and some that stand beside it; nothing outside imports them.

Read `vae` first. `experiments` holds what the chapters of the book's second part share: profiles, records, trainings.
Then a chapter each: `jmvae` (B2); `gwae`, `factors` and `gwae_experiment` (B3); `influence` (B4); `runoff` (B5);
`eeg_data`, `eeg_frames` and `eeg` (B6).
"""
